"""Files in a folder, read by position. This module does not import torch, because `repro shards` uses it too."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repro.errors import UnreadableError


@dataclass(frozen=True, eq=False)
class FolderFiles:
    """Files in a folder. `names` are relative to the folder, or absolute."""

    folder: Path
    names: NDArray[np.bytes_]  # not a list: reference counts would copy its memory into every forked worker

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> FolderFiles:
        """Return the files of these names."""
        return cls(folder, np.array([os.fsencode(name) for name in names]))

    def name(self, index: int) -> str:
        """Return the path of a file."""
        return os.path.join(self.folder, os.fsdecode(self.names[index]))

    def read(self, index: int) -> bytes:
        """Return the bytes of a file. Raises `UnreadableError` if it cannot be read."""
        try:
            with open(self.name(index), "rb") as stream:
                return stream.read()
        except OSError as error:
            raise UnreadableError(f"{self.name(index)}: cannot be read ({error.strerror})") from None

    def take(self, rows: NDArray[np.int64]) -> FolderFiles:
        return replace(self, names=self.names[rows])

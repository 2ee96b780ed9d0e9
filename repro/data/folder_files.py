"""Files in a folder, by their positions. No torch: `repro shards` reads as a training does."""

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
    """Files in a folder; `names` are relative to it, or absolute."""

    folder: Path
    names: NDArray[np.bytes_]  # a list of strings would be copied into every worker, one reference count at a time

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> FolderFiles:
        """Return the files of these names."""
        return cls(folder, np.array([os.fsencode(name) for name in names]))

    def name(self, index: int) -> str:
        """Return the path of a file."""
        return os.path.join(self.folder, os.fsdecode(self.names[index]))

    def read(self, index: int) -> bytes:
        """Return the bytes of a file. Raise `UnreadableError` if it cannot be read."""
        try:
            with open(self.name(index), "rb") as stream:
                return stream.read()
        except OSError as error:
            raise UnreadableError(f"{self.name(index)}: cannot be read ({error.strerror})") from None

    def take(self, rows: NDArray[np.int64]) -> FolderFiles:
        return replace(self, names=self.names[rows])

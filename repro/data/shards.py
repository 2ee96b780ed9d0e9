"""Images in tar files: a few large files in the place of a million small ones, each image still found at once.

The tar files are WebDataset's: an image and its class under one key, `n01440764/n01440764_10026.JPEG` and
`n01440764/n01440764_10026.cls`. Beside them lies an index of where each image begins, so that any order can be read,
which a stream of tar files cannot: what a batch holds stays a function of its place in the epoch.
"""

from __future__ import annotations

import os
import tarfile
import weakref
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from repro.data.places import SHARDS_INDEX
from repro.errors import UserError

CLASSES = "classes.txt"
BLOCK = tarfile.BLOCKSIZE
HOW = "repro shards --index"
_ARRAYS = ("tars", "tar_sizes", "classes", "names", "labels", "tar", "offsets", "sizes")


@dataclass(frozen=True, eq=False)
class Shards:
    """Image files in tar files: of each its name, in which tar file it is, where it begins there, and its bytes."""

    folder: Path
    tars: tuple[str, ...]
    names: NDArray[np.bytes_]
    tar: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    _open: dict[int, int] = field(default_factory=dict)  # file descriptors, by tar file

    def __post_init__(self) -> None:
        weakref.finalize(self, _close, self._open)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """`FOLDER/train-000003.tar: n01440764/n01440764_10026.JPEG`."""
        return f"{self.folder / self.tars[self.tar[index]]}: {os.fsdecode(self.names[index])}"

    def read(self, index: int) -> bytes:
        """One image's bytes, in one read. Raises `UserError` where the tar file is not what its index says."""
        number, start, size = int(self.tar[index]), int(self.offsets[index]), int(self.sizes[index])
        if number not in self._open:
            self._open[number] = os.open(self.folder / self.tars[number], os.O_RDONLY)
        found = os.pread(self._open[number], BLOCK + size, start - BLOCK)  # no position that forked workers would share
        try:
            header = tarfile.TarInfo.frombuf(found[:BLOCK], "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise UserError(f"{self.name(index)}: no tar header where the index says ({error}); {_MEND}") from None
        if header.size != size or len(found) != BLOCK + size:
            raise UserError(f"{self.name(index)}: {len(found) - BLOCK} of {size} bytes are there; {_MEND}")
        return found[BLOCK:]

    def take(self, indices: Tensor) -> Shards:
        """These images only."""
        rows = indices.numpy()
        every = (self.names, self.tar, self.offsets, self.sizes)
        names, tar, offsets, sizes = (values[rows] for values in every)
        return replace(self, names=names, tar=tar, offsets=offsets, sizes=sizes, _open={})


_MEND = f"copy the tar file again, or make its index anew ({HOW})"


def _close(descriptors: dict[int, int]) -> None:
    for number in descriptors.values():
        os.close(number)


def load_index(folder: Path) -> tuple[Shards, tuple[str, ...], list[str], list[int]]:
    """The shards of `folder`, their classes, and the name and class of each image.

    Raises `UserError` for no index, one that cannot be read, or tar files that are gone or of another size.
    """
    path = folder / SHARDS_INDEX
    if not path.is_file():
        raise UserError(f"{folder}: tar files without {SHARDS_INDEX}; {HOW} {folder}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = {name: stored[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}); {HOW} {folder}") from None
    tars = tuple(os.fsdecode(name) for name in found["tars"])
    for name, promised in zip(tars, found["tar_sizes"].tolist(), strict=True):
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise UserError(f"{folder / name}: cannot be read ({error.strerror}); copy it again") from None
        if size != promised:
            raise UserError(f"{folder / name}: {size} bytes, its index says {promised}; {_MEND}")
    shards = Shards(folder, tars, found["names"], found["tar"], found["offsets"], found["sizes"])
    names, classes = ([os.fsdecode(name) for name in found[key]] for key in ("names", "classes"))
    return shards, tuple(classes), names, found["labels"].tolist()

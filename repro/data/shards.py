"""Shards: the files of a split in a few uncompressed zip files, in which a single `pread` reads any file.

`zipfile` reads the directory of each shard only once, when the split is listed. Workers then need 60 bytes per file and
share no file position. An open `ZipFile` needs 650 bytes per file, and two forked processes cannot use it.
"""

from __future__ import annotations

import os
import posixpath
import re
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repro.data.layouts import SHARDS, is_data_path, is_image, visible_files
from repro.errors import UnreadableError, UserError, first_few

_REMEDY = "copy the shard again, or make it anew (repro shards)"
_PART = re.compile(r"-(\d+)-of-(\d+)\.zip$")


@dataclass(frozen=True, eq=False)
class Shards:
    """Files in shards. All arrays have one element per file."""

    paths: tuple[Path, ...]  # the shards
    names: NDArray[np.bytes_]
    shard: NDArray[np.int32]  # index into `paths`
    offsets: NDArray[np.int64]  # position of the file's bytes in the shard
    sizes: NDArray[np.int64]  # in bytes
    checksums: NDArray[np.uint32]  # CRC-32
    _descriptors: dict[int, int] = field(default_factory=dict)  # file descriptors of open shards, by index

    def __post_init__(self) -> None:
        weakref.finalize(self, _close, self._descriptors)

    def name(self, index: int) -> str:
        """Return the shard and name of a file: `FOLDER/train-00003-of-00129.zip: n01440764/n01440764_10026.JPEG`."""
        return f"{self.paths[self.shard[index]]}: {os.fsdecode(self.names[index])}"

    def read(self, index: int) -> bytes:
        """Return the bytes of a file. Raises `UnreadableError` if they cannot be read or do not match the checksum."""
        number = int(self.shard[index])
        try:
            if number not in self._descriptors:
                opened = os.open(self.paths[number], os.O_RDONLY)
                if self._descriptors.setdefault(number, opened) != opened:  # another thread was faster
                    os.close(opened)
            # Forked workers share the position of an inherited descriptor, which pread does not use.
            data = os.pread(self._descriptors[number], int(self.sizes[index]), int(self.offsets[index]))
        except OSError as error:
            raise UnreadableError(f"{self.name(index)}: cannot be read ({error.strerror})") from None
        if zlib.crc32(data) != self.checksums[index]:
            raise UnreadableError(f"{self.name(index)}: its bytes do not have the checksum that the shard gives")
        return data

    def take(self, rows: NDArray[np.int64]) -> Shards:
        columns = {name: getattr(self, name)[rows] for name in ("names", "shard", "offsets", "sizes", "checksums")}
        return replace(self, **columns, _descriptors={})


def _close(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def open_shards(folder: Path) -> tuple[list[str], Shards]:
    """List the images in the shards of `folder`, in the order in which they are stored; return their names and places.

    Raises `UserError` for a shard that is missing, damaged or compressed.
    """
    files = [name for name in visible_files(folder) if name.endswith(SHARDS)]
    _check_complete(folder, files)
    names: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    for number, file in enumerate(files):
        for info, end in _members(folder / file):
            names.append(posixpath.normpath(info.filename))
            rows.append((number, end - info.file_size, info.file_size, info.CRC))
    if not names:
        raise UserError(f"{folder}: no images in its zip files")
    check_unique(folder, zip(names, (files[row[0]] for row in rows), strict=True))
    shard, offsets, sizes, checksums = np.array(rows, np.int64).T
    encoded = np.array([os.fsencode(name) for name in names])
    paths = tuple(folder / file for file in files)
    shards = Shards(paths, encoded, shard.astype(np.int32), offsets, sizes, checksums.astype(np.uint32))
    return names, shards


def check_unique(folder: Path, images: Iterable[tuple[str, str]]) -> None:
    """Raise `UserError` if two images have the same name. `images` are pairs of a name and its archive in `folder`."""
    first: dict[str, str] = {}
    for name, archive in images:
        if name in first:
            where = "it twice" if first[name] == archive else f"{first[name]} too"
            raise UserError(f"{folder / archive}: {name} is in {where}; rename or remove one of them")
        first[name] = archive


def _members(path: Path) -> list[tuple[zipfile.ZipInfo, int]]:
    """Return the images in a shard, each with the position after its last byte."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            # A stored file ends where the next header begins. Its own header cannot give its start, because the
            # directory does not hold the length of that header.
            ends = [*(info.header_offset for info in infos[1:]), archive.start_dir]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, struct.error) as error:
        raise UserError(f"{path}: cannot be read as a zip file ({error}); {_REMEDY}") from None
    members = zip(infos, ends, strict=True)
    images = [(info, end) for info, end in members if is_image(info.filename) and is_data_path(info.filename)]
    for info, _ in images:
        # Bit 0: the file is encrypted. Bit 3: a data descriptor stands between the file and the next header.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0b1001:
            raise UserError(
                f"{path}: {info.filename} is not stored uncompressed; unzip it, and pack the folder (repro shards)"
            )
    return images


def _check_complete(folder: Path, files: list[str]) -> None:
    """Raise `UserError` if a shard is missing from a series such as `<split>-00000-of-00129.zip`."""
    expected: set[str] = set()
    for file in files:
        if match := _PART.search(file):
            expected |= {f"{file[: match.start()]}-{number:05}-of-{match[2]}.zip" for number in range(int(match[2]))}
    if missing := sorted(expected - set(files)):
        raise UserError(f"{folder}: no {first_few(missing)}; copy the shards again")

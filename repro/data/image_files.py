"""Image files, in folders or in shards: listing them, giving them out, telling whether they changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from repro.data.decoding import decoding
from repro.data.places import check_class_folders, has_shards
from repro.data.shards import Shards, load_index
from repro.data.splits import first_few
from repro.data.unfinished import View
from repro.errors import UserError

STAT_THREADS = 16


@dataclass(frozen=True)
class Listing:
    """Image files below `folder`, sorted by name: names relative to it, and classes as indices into `classes`.

    `shards` holds them where they are not files of their own, in the same order.
    """

    folder: Path
    classes: tuple[str, ...]
    names: Sequence[str]
    labels: Sequence[int]
    shards: Shards | None = None

    def sizes(self) -> list[int]:
        """Bytes of each file. Raises `UserError` for one that is gone."""
        if self.shards is not None:
            return [int(size) for size in self.shards.sizes]
        # Threads, because a network file system answers slowly but answers many at once.
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            step = max(1, -(-len(self.names) // STAT_THREADS))
            parts = [self.names[start : start + step] for start in range(0, len(self.names), step)]
            return [size for part in pool.map(partial(_sizes, self.folder), parts) for size in part]


def is_image(name: str) -> bool:
    """Whether a file's ending is that of an image."""
    return name.lower().endswith(tuple(IMG_EXTENSIONS))


def list_class_folders(folder: Path) -> Listing:
    """The images in `folder/<class>/`, classes in the order of their names.

    torchvision's lister, not timm's: timm orders names that differ in case or leading zeros as the file system
    happens to give them, and a resumed run must see the order of the first. Raises `UserError` for a missing folder,
    no class folders, or a class without images.
    """
    check_class_folders(folder)
    classes, index = find_classes(folder)
    samples = make_dataset(folder, index, extensions=IMG_EXTENSIONS, allow_empty=True)
    filled = {label for _, label in samples}
    empty = [name for name in classes if index[name] not in filled]
    if empty:
        raise UserError(
            f"{folder}: no images in class folder {first_few(empty)}; valid endings: {' '.join(IMG_EXTENSIONS)}"
        )
    start = len(os.path.join(folder, ""))  # of the name in the path: relpath would take seconds for a million files
    return Listing(folder, tuple(classes), [path[start:] for path, _ in samples], [label for _, label in samples])


def list_shards(folder: Path) -> Listing | None:
    """The images in the tar files of `folder`, in their order there; None where there are no tar files."""
    if not folder.is_dir() or not has_shards(folder):
        return None
    shards, classes, names, labels = load_index(folder)
    return Listing(folder, classes, names, labels, shards)


class Files(Protocol):
    """Where the bytes of images are."""

    def read(self, index: int) -> bytes:
        """The bytes of a file. Raises `OSError`, or `UserError` that names what is damaged."""
        ...

    def name(self, index: int) -> str:
        """What an error calls it."""
        ...

    def take(self, indices: Tensor) -> Files:
        """These files only."""
        ...


@dataclass(frozen=True, eq=False)
class FolderFiles:
    """Files below a folder."""

    folder: Path
    names: np.ndarray  # bytes: a list of strings would be copied into every worker, one reference count at a time

    def read(self, index: int) -> bytes:
        """The whole file."""
        with open(self.name(index), "rb") as stream:
            return stream.read()

    def name(self, index: int) -> str:
        """Its path."""
        return os.path.join(self.folder, os.fsdecode(self.names[index]))

    def take(self, indices: Tensor) -> FolderFiles:
        """These files only."""
        return replace(self, names=self.names[indices.numpy()])


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images that are decoded when asked for."""

    files: Files
    labels: Tensor
    view: Callable[[bytes, str], Tensor | View]
    is_random: bool

    @classmethod
    def of(cls, listing: Listing, view: Callable[[bytes, str], Tensor | View], is_random: bool) -> ImageFiles:
        """The images of a listing, each as what `view` makes of its bytes and name."""
        names = np.array([os.fsencode(name) for name in listing.names])
        files = FolderFiles(listing.folder, names) if listing.shards is None else listing.shards
        return cls(files, torch.tensor(listing.labels), view, is_random)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor | View, int]:
        name = self.files.name(index)
        with decoding(name):
            data = self.files.read(index)
        return self.view(data, name), int(self.labels[index])

    def take(self, indices: Tensor) -> ImageFiles:
        """These images only."""
        return replace(self, files=self.files.take(indices), labels=self.labels[indices])


def fingerprint(*listings: Listing) -> str:
    """16 hex digits of the names, classes and sizes of the files, in shards or not; their bytes are not read.

    Raises `UserError` for a file that is gone.
    """
    digest = blake2b(digest_size=8)
    for listing in listings:
        digest.update("\0".join(listing.classes).encode(errors="surrogateescape") + b"\n")
        for name, label, size in zip(listing.names, listing.labels, listing.sizes(), strict=True):
            digest.update(f"{name}\0{label}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _sizes(folder: Path, names: Sequence[str]) -> list[int]:
    sizes = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            sizes.append(os.stat(path).st_size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); restore the file or take it away") from None
    return sizes

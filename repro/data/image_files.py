"""Image files on disk: listing them, decoding them, telling whether they changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from repro.data.places import check_class_folders
from repro.data.splits import first_few
from repro.data.transforms import Transform
from repro.errors import UserError

STAT_THREADS = 16


@dataclass(frozen=True)
class Listing:
    """Image files below `folder`, sorted by name: names relative to it, and classes as indices into `classes`."""

    folder: Path
    classes: tuple[str, ...]
    names: Sequence[str]
    labels: Sequence[int]


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


def read_image(path: str) -> Image.Image:
    """The decoded image, RGB. Raises `UserError` that names the file where it cannot be decoded."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        reason = type(error).__name__ if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path}: cannot be decoded as an image ({reason}); replace the file or take it away") from None


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images that are decoded when asked for."""

    folder: Path
    names: np.ndarray  # bytes: a list of strings would be copied into every worker, one reference count at a time
    labels: Tensor
    transform: Transform
    is_random: bool

    @classmethod
    def of(cls, listing: Listing, transform: Transform, is_random: bool) -> ImageFiles:
        """The images of a listing, through a transform."""
        names = np.array([os.fsencode(name) for name in listing.names])
        return cls(listing.folder, names, torch.tensor(listing.labels), transform, is_random)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_image(os.path.join(self.folder, os.fsdecode(self.names[index])))
        return self.transform(image), int(self.labels[index])

    def take(self, indices: Tensor) -> ImageFiles:
        """These images only."""
        return replace(self, names=self.names[indices.numpy()], labels=self.labels[indices])


def fingerprint(*listings: Listing) -> str:
    """16 hex digits of the names, classes and sizes of the files; their bytes are not read.

    Raises `UserError` for a file that is gone.
    """
    digest = blake2b(digest_size=8)
    # Threads, because a network file system answers slowly but answers many at once.
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        for listing in listings:
            digest.update("\0".join(listing.classes).encode(errors="surrogateescape") + b"\n")
            step = -(-len(listing.names) // STAT_THREADS)
            parts = [listing.names[start : start + step] for start in range(0, len(listing.names), step)]
            sizes = [size for part in pool.map(partial(_sizes, listing.folder), parts) for size in part]
            for name, label, size in zip(listing.names, listing.labels, sizes, strict=True):
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

"""CIFAR-10 and CIFAR-100 from the published archives for Python, read and checked by torchvision."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry
from repro.data.in_memory import array_digest
from repro.data.layouts import ARCHIVES, Archive, find_data
from repro.data.splits import Splits
from repro.data.transforms import evaluation_transform, padded_crop_transform
from repro.errors import UserError, first_line

_CLASSES: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, uint8 (images, height, width, 3), which are transformed when they are indexed."""

    pixels: Pixels
    labels: Tensor
    transform: Callable[[Image.Image], Any]  # takes an RGB image
    is_random: bool  # whether the transform draws from the global random generators

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])

    def take(self, indices: Tensor) -> ArrayImages:
        return replace(self, pixels=self.pixels[indices.numpy()], labels=self.labels[indices])


def load(data: Data, recipe: Recipe, model: Geometry, trained_on: str | None = None) -> Splits:
    """Load the published splits, with the recipe's augmentation on the training images.

    Training images are padded by 4 pixels and cropped instead of being cropped and resized, as is usual for CIFAR, and
    as DeiT's code does for images of up to 32 pixels. Raises `UserError` for archives that are missing or not
    the published ones.
    """
    train, test = (read_archive(data, is_training=is_training) for is_training in (True, False))
    arrays = [(np.asarray(split.data), np.asarray(split.targets, dtype=np.int64)) for split in (train, test)]
    transforms = (padded_crop_transform(data, recipe, model), evaluation_transform(data, recipe, model))
    images = [
        ArrayImages(pixels, torch.from_numpy(labels), transform, is_random)
        for (pixels, labels), transform, is_random in zip(arrays, transforms, (True, False), strict=True)
    ]
    return Splits(
        train=images[0],
        test=images[1],
        num_classes=len(train.classes),
        fingerprint=array_digest(*arrays[0], *arrays[1]),
    )


def read_archive(data: Data, *, is_training: bool) -> CIFAR10:
    """Read a split of the archive, and download it if `data.download` is set.

    Raises `UserError` if the archive cannot be downloaded or is not the published one.
    """
    root, archive = find_data(data), ARCHIVES[data.name]
    assert root is not None
    try:
        with _only_one_unpacks(root, archive, is_fetched=data.download):
            return _read(root, archive, _CLASSES[data.name], is_training=is_training, is_fetched=data.download)
    except URLError as error:
        raise UserError(
            f"{archive.address}{archive.file}: cannot be fetched ({error.reason}); put it into data.root={root}"
        ) from None
    except (RuntimeError, OSError, EOFError, tarfile.TarError) as error:  # wrong MD5, truncated, or no access
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"data.root={root}: {archive.file} cannot be read or unpacked there ({error.strerror}); unpack it "
                "there, or set data.root to a folder that you can write to"
            ) from None
        raise UserError(
            f"data.root={root}: {archive.file} and {archive.folder}/ in it are not what is published at "
            f"{archive.address} ({first_line(error)}); remove them and fetch the archive again"
        ) from None


def _read(root: Path, archive: Archive, published: type[CIFAR10], *, is_training: bool, is_fetched: bool) -> CIFAR10:
    is_packed = not (root / archive.folder).is_dir()
    if is_packed and not is_fetched and not check_integrity(str(root / archive.file), published.tgz_md5):
        raise RuntimeError("the archive has another md5")  # otherwise torchvision would download it
    return published(root, train=is_training, download=is_packed or is_fetched)


def _only_one_unpacks(root: Path, archive: Archive, *, is_fetched: bool) -> AbstractContextManager[object]:
    """Return a lock, so that runs that start together do not unpack into one folder at the same time.

    Nothing can be unpacked into a folder that is not writable, so it needs no lock.
    """
    if is_fetched:
        root.mkdir(parents=True, exist_ok=True)
    return FileLock(root / f".{archive.folder}.lock") if os.access(root, os.W_OK) else nullcontext()

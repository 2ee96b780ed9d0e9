"""Shapes on clutter: generated images in 8 classes, with the exact mask of the object, about a seventh of the image.

The data set tests token dropping: dropping the background is right, and dropping the object is wrong. The class is the
kind of object. A scene can be drawn with any kind, while the ground, lines, blobs, and the size and place of the object
stay the same. The hues of neighbouring kinds overlap, so that hue alone does not separate the classes, and lines and
blobs have the hues of all kinds.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry
from repro.data import shapes_drawing
from repro.data.cache import data_cache, source_digest
from repro.data.data_sets import split_sizes
from repro.data.in_memory import ImagesInMemory, array_digest
from repro.data.shapes_drawing import NAMES, Bools, Pixels, draw, scenes
from repro.data.splits import Splits
from repro.files import replacing

Part = tuple[Pixels, NDArray[np.int64], Bools]
_ARRAYS = [f"{split}.{what}" for split in ("train", "test") for what in ("pixels", "classes", "masks")]


def load(data: Data, recipe: Recipe, model: Geometry, trained_on: str | None = None) -> Splits:
    """Load 4,096 training and 1,024 test images at the model's size, with balanced classes, the same for every seed.

    Both splits have `masks`.
    """
    train, test = cached_splits(data_cache(data), model.image_size)
    return Splits(
        train=_images(train, data),
        test=_images(test, data),
        num_classes=len(NAMES),
        fingerprint=array_digest(*train, *test),
    )


def raw_splits(side: int) -> tuple[Part, Part]:
    """Draw training and test images: pixels (uint8, n x side x side x 3), classes (int64) and masks (bool)."""
    n_train, n_test = split_sizes("shapes")
    return _part(0, n_train, side), _part(1, n_test, side)


def cached_splits(folder: Path, side: int) -> tuple[Part, Part]:
    """Return `raw_splits` from a file in `folder`, which is written if it is missing or damaged.

    Warns if the file cannot be written.
    """
    n_train, n_test = split_sizes("shapes")
    path = folder / f"shapes-{side}-{n_train}-{n_test}-{source_digest(shapes_drawing)}.safetensors"
    cached = _read(path)
    if cached is not None:
        return cached
    train, test = raw_splits(side)
    try:
        with replacing(path) as temporary:
            arrays: tuple[NDArray[Any], ...] = (*train, *test)  # the type that mypy infers varies between its runs
            save_file(dict(zip(_ARRAYS, arrays, strict=True)), temporary, {"digest": array_digest(*arrays)})
    except OSError as error:
        warnings.warn(
            f"{path}: cannot be written ({error.strerror}); shapes are drawn again for every run (or set data.root)",
            RuntimeWarning,
            stacklevel=2,
        )
    return train, test


def _part(stream: int, count: int, side: int) -> Part:
    classes = np.arange(count) % len(NAMES)
    pixels, masks = draw(scenes((stream,), range(count), side), classes)
    return pixels, classes, masks


def _read(path: Path) -> tuple[Part, Part] | None:
    """Return the splits in a file; None if it is missing, damaged or not readable."""
    try:
        with safe_open(path, framework="numpy") as stored:
            written_digest = (stored.metadata() or {}).get("digest")
            arrays = tuple(stored.get_tensor(name) for name in _ARRAYS)
    except (OSError, SafetensorError):
        return None
    return (arrays[:3], arrays[3:]) if array_digest(*arrays) == written_digest else None


def _images(part: Part, data: Data) -> ImagesInMemory:
    pixels, classes, masks = part
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return ImagesInMemory((images - mean) / std, torch.from_numpy(classes), torch.from_numpy(masks))

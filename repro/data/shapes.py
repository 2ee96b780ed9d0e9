"""Shapes on clutter: generated images in 8 classes whose object, a seventh of the image, is known to the pixel.

Made for token dropping: to drop the background is right, to drop the object is wrong. The class is the kind of object;
the same scene can be drawn with any kind, and everything else in it (ground, lines, blobs, the object's size and place)
is then the same. Hues overlap between neighbouring kinds, so that hue alone does not tell them apart; lines and blobs
have hues of all kinds. Nothing is downloaded.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from repro.config import Data, Recipe
from repro.data import shapes_drawing
from repro.data.cache import cache_folder, version
from repro.data.in_memory import ImagesInMemory, check_not_augmented, digest
from repro.data.shapes_drawing import NAMES, Bools, Pixels, draw, scenes
from repro.data.splits import Splits, check_channels
from repro.errors import UserError
from repro.geometry import Geometry
from repro.runs.files import replacing

TRAIN_IMAGES, TEST_IMAGES = 4096, 1024
SMALLEST = 16  # pixels a side: below, a star and a disc look the same

Part = tuple[Pixels, NDArray[np.int64], Bools]


def load(data: Data, recipe: Recipe, model: Geometry) -> Splits:
    """4,096 training and 1,024 test images of the model's size, as many of each class, the same ones for every seed.

    Both splits have `masks`. Raises `UserError` for another number of channels than 3, images of less than 16 pixels a
    side, or a recipe that augments.
    """
    if model.image_size < SMALLEST:
        raise UserError(f"model.image_size={model.image_size}: data=shapes is drawn at {SMALLEST} pixels or more")
    check_channels(data, model, channels=3)
    check_not_augmented(data, recipe)
    train, test = kept_splits(cache_folder(data), model.image_size)
    return Splits(
        train=_normalised(train, data),
        test=_normalised(test, data),
        num_classes=len(NAMES),
        fingerprint=digest(*train, *test),
    )


def raw_splits(side: int) -> tuple[Part, Part]:
    """Training and test images, drawn: pixels (uint8, n x side x side x 3), classes (int64), masks (bool)."""
    return _part(0, TRAIN_IMAGES, side), _part(1, TEST_IMAGES, side)


def kept_splits(folder: Path, side: int) -> tuple[Part, Part]:
    """`raw_splits`, drawn once and kept in a file of `folder`; a file that is damaged is drawn anew.

    Where the folder cannot be written, a warning says so and nothing is kept.
    """
    path = folder / f"shapes-{side}-{TRAIN_IMAGES}-{TEST_IMAGES}-{version(shapes_drawing)}.safetensors"
    kept = _read(path)
    if kept is not None:
        return kept
    train, test = raw_splits(side)
    names = [f"{split}.{what}" for split in ("train", "test") for what in ("pixels", "classes", "masks")]
    try:
        with replacing(path) as temporary:
            save_file(dict(zip(names, (*train, *test), strict=True)), temporary, {"digest": digest(*train, *test)})
    except OSError as error:
        warnings.warn(
            f"{path}: cannot be kept ({error.strerror}); shapes are drawn for every run (or set data.root)",
            RuntimeWarning,
            stacklevel=2,
        )
    return train, test


def _part(stream: int, count: int, side: int) -> Part:
    classes = np.arange(count) % len(NAMES)
    pixels, masks = draw(scenes((stream,), range(count), side), classes)
    return pixels, classes, masks


def _read(path: Path) -> tuple[Part, Part] | None:
    """What is kept there; None where there is nothing, or nothing that is whole."""
    try:
        with safe_open(path, framework="numpy") as stored:
            said = (stored.metadata() or {}).get("digest")
            train, test = (
                tuple(stored.get_tensor(f"{split}.{what}") for what in ("pixels", "classes", "masks"))
                for split in ("train", "test")
            )
    except (FileNotFoundError, SafetensorError):
        return None
    return (train, test) if digest(*train, *test) == said else None


def _normalised(part: Part, data: Data) -> ImagesInMemory:
    pixels, classes, masks = part
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return ImagesInMemory((images - mean) / std, torch.from_numpy(classes), torch.from_numpy(masks))

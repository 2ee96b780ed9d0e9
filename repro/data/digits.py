"""Handwritten digits: 1,797 real 8x8 images in 10 classes that ship with scikit-learn.

Source: UCI, Optical Recognition of Handwritten Digits (its test part), through `sklearn.datasets.load_digits`.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry
from repro.data.data_sets import split_sizes
from repro.data.in_memory import ImagesInMemory, array_digest
from repro.data.splits import Splits

WHITE = 16  # the largest pixel value


def load(data: Data, recipe: Recipe, model: Geometry, trained_on: str | None = None) -> Splits:
    """Load 1,437 training and 360 test images, a class-stratified split."""
    train, test = raw_splits()
    return Splits(
        train=_images(*train, data),
        test=_images(*test, data),
        num_classes=10,
        fingerprint=array_digest(*train, *test),
    )


def raw_splits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return training and test pixels, uint8 in [0, 16] of shape (images, 8, 8), with labels, int64 (images,)."""
    digits = load_digits()
    pixels, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    # The split belongs to the data set, so it must not depend on the seed of the run.
    train, test = train_test_split(
        np.arange(len(labels)), test_size=split_sizes("digits")[1], random_state=0, stratify=labels
    )
    return (pixels[train], labels[train]), (pixels[test], labels[test])


def _images(pixels: np.ndarray, labels: np.ndarray, data: Data) -> ImagesInMemory:
    images = torch.from_numpy(pixels).to(torch.float32).unsqueeze(1) / WHITE
    return ImagesInMemory((images - data.mean[0]) / data.std[0], torch.from_numpy(labels))

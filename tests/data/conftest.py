"""Small folders of real JPEG files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from image_folders import MakeImages
from PIL import Image


@pytest.fixture
def make_images() -> MakeImages:
    """Write one 48x40 JPEG file of noise for every name, each another picture."""
    generator = np.random.default_rng(0)

    def make(folder: Path, names: Iterable[str]) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            coarse.resize((48, 40)).save(path, format="JPEG")

    return make


@pytest.fixture
def flowers(tmp_path: Path, make_images: MakeImages) -> Path:
    """Two classes, 6 + 4 training images and 2 + 1 validation images."""
    root = tmp_path / "flowers, dried"
    make_images(root / "train", [f"aster/{i}.jpg" for i in range(6)] + [f"rose/{i}.JPEG" for i in range(4)])
    make_images(root / "val", ["aster/a.jpg", "aster/b.jpg", "rose/a.jpg"])
    return root

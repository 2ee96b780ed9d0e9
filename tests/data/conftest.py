"""Small folders of real JPEG files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro.config import Config, compose

MakeImages = Callable[[Path, Iterable[str]], None]

KAGGLE_IMAGES = Path("ILSVRC/Data/CLS-LOC")


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


def folder_config(root: Path, data: str = "imagefolder", **values: object) -> Config:
    """A config whose images are 32x32, with DeiT's augmentation, from a folder."""
    keys: Mapping[str, object] = {
        "data.root": f"'{root}'",
        "data.images_per_epoch": "null",
        "model.image_size": 32,
        "model.in_chans": 3,
        "model.num_classes": 2,
        "recipe.rand_augment": "rand-m9-mstd0.5-inc1",
        "recipe.random_erasing": 0.25,
        "recipe.eval_crop_pct": 0.875,
        **values,
    }
    return compose([f"data={data}", *(f"{key}={value}" for key, value in keys.items())])

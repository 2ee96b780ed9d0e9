"""Configs and types for folders of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from repro.config import Config
from repro.config.compose import compose

MakeImages = Callable[[Path, Iterable[str]], None]

KAGGLE_IMAGES = Path("ILSVRC/Data/CLS-LOC")


def folder_config(root: Path, data: str = "imagefolder", **values: object) -> Config:
    """A config whose images are 32x32, with DeiT's augmentation, from a folder."""
    keys: Mapping[str, object] = {
        "data.root": f"'{root}'",
        "data.images_per_epoch": "null",
        "backbone.local.image_size": 32,
        "backbone.local.in_chans": 3,
        "backbone.local.num_classes": 2,
        "recipe.rand_augment": "rand-m9-mstd0.5-inc1",
        "recipe.random_erasing": 0.25,
        "recipe.eval_crop_pct": 0.875,
        **values,
    }
    return compose([f"data={data}", *(f"{key}={value}" for key, value in keys.items())])

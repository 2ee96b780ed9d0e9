"""A training on real JPEG files with the whole DeiT recipe: RandAugment, erasing, mixing, repeated augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import Kept, same, small_config, trainer

from repro.interruption import Interrupted

CLASSES = 3


def write_images(root: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for label in range(CLASSES):
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 90, (40, 48, 3), dtype=np.uint8)
                pixels[..., label] += 120  # red, green, blue
                Image.fromarray(pixels).save(folder / f"{index}.jpg")


def test_from_jpeg_files_to_a_result_and_back_after_a_stop(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    config = small_config(
        "method=svite_plus", "data=imagefolder", f"data.root='{tmp_path / 'images'}'", "data.workers=2",
        "data.limit_train=null", "data.limit_test=null",
        "model.image_size=32", "model.patch_size=8", "model.in_chans=3", f"model.num_classes={CLASSES}",
        "recipe.rand_augment=rand-m9-mstd0.5-inc1", "recipe.color_jitter=0.4", "recipe.random_erasing=0.25",
        "recipe.mixup=0.8", "recipe.cutmix=1.0", "recipe.repeated_augmentation=3", "recipe.eval_crop_pct=0.875",
        "recipe.global_batch=12", "recipe.micro_batch=6", "recipe.epochs=3",
    )  # fmt: skip
    kept, pieces = Kept(), Kept()
    whole = trainer(config, tmp_path / "whole", kept=kept)
    result = whole.run()
    assert result["updates"] == 3 * (CLASSES * 16 // 12)
    assert result["top1_last_pct"] is not None
    with pytest.raises(Interrupted):
        trainer(config, tmp_path / "pieces", kept=pieces, stop_at=6).run()
    resumed = trainer(config, tmp_path / "pieces", kept=pieces)
    assert resumed.resumed_from == 6
    resumed.run()
    left, right = whole.state.state_dict(), resumed.state.state_dict()
    for key in left.keys() - {"wall_s"}:
        assert same(left[key], right[key]), key
    assert kept.of("train") == pieces.of("train")

"""Loading the test images without the training images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from image_folders import KAGGLE_IMAGES, MakeImages, folder_config
from timm.data import ImageNetInfo

from repro.config import Config
from repro.config.compose import compose, with_data
from repro.data.splits import EvalSplit, load_eval_split, load_splits
from repro.errors import UserError

WNIDS = ImageNetInfo().label_names()


def load(config: Config) -> EvalSplit:
    return load_eval_split(config.data, config.recipe, config.model)


def error(config: Config) -> str:
    with pytest.raises(UserError) as caught:
        load(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_images_are_those_of_load_splits(flowers: Path) -> None:
    config = folder_config(flowers)
    splits, found = load_splits(config.data, config.recipe, config.model), load(config)
    assert (found.total, found.num_classes, found.fingerprint_of) == (3, 2, "test images")
    assert torch.equal(found.images.labels, splits.test.labels)
    assert all(torch.equal(found.images[index][0], splits.test[index][0]) for index in range(3))
    limited = load(folder_config(flowers, **{"data.limit_test": 2}))
    assert (len(limited.images), limited.total, limited.fingerprint) == (2, 3, found.fingerprint)


def test_the_training_images_are_not_needed(flowers: Path) -> None:
    before = load(folder_config(flowers)).fingerprint
    for path in (flowers / "train").glob("*/*"):
        path.unlink()  # the class folders remain, and are listed only
    assert load(folder_config(flowers)).fingerprint == before
    shutil.rmtree(flowers / "train")
    assert load(folder_config(flowers)).fingerprint == before


def test_classes_other_than_the_trained_ones_are_refused(flowers: Path) -> None:
    (flowers / "val" / "rose").rename(flowers / "val" / "tulip")
    assert error(folder_config(flowers)) == (
        f"{flowers / 'val'}: its classes are not those that are trained on; missing: rose; extra: tulip"
    )
    shutil.rmtree(flowers / "train")
    assert load(folder_config(flowers)).num_classes == 2  # nothing to compare them with
    assert error(folder_config(flowers, **{"backbone.local.num_classes": 3})) == (
        "data=imagefolder has 2 classes, the model 3: it was trained on other data; evaluate it on those"
    )


def test_a_flat_folder_of_imagenet_takes_its_labels_from_the_csv(tmp_path: Path, make_images: MakeImages) -> None:
    root = tmp_path / KAGGLE_IMAGES
    names = [f"ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2, 3)]
    make_images(root / "val", names)
    lines = ["ImageId,PredictionString"]
    lines += [f"{Path(name).stem},{wnid} 1 2 3 4" for name, wnid in zip(names, WNIDS[5:8], strict=True)]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    few = {"backbone.local.num_classes": 3}
    assert "no train/ in it" in error(folder_config(tmp_path, data="imagenet", **few))
    for wnid in WNIDS[5:8]:
        (root / "train" / wnid).mkdir(parents=True)
    found = load(folder_config(tmp_path, data="imagenet", **few))
    assert found.images.labels.tolist() == [0, 1, 2]


def test_class_folders_of_imagenet_are_wnids(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "val", [f"{wnid}/a.JPEG" for wnid in (*WNIDS[:2], "cats")])
    message = error(folder_config(tmp_path, data="imagenet", **{"backbone.local.num_classes": 3}))
    assert message.startswith(f"{tmp_path / 'val'}: class folders are not wnids of ImageNet-1k; extra: cats (")
    message = error(folder_config(tmp_path, data="imagenet", **{"backbone.local.num_classes": 1000}))
    assert "missing: n01443537, n01484850" in message.replace(WNIDS[2], "n01443537").replace(WNIDS[3], "n01484850")


def test_data_overrides_change_only_what_they_name() -> None:
    base = compose(["scale=paper", "data.root=/old", "data.mean=[0.5,0.5,0.5]", "data.limit_test=7"]).data
    assert with_data(base, []) == base
    moved = with_data(base, ["data.root='/new, place'", "data.workers=3"])
    assert moved == base.model_copy(update={"root": "/new, place", "workers": 3})
    clips = compose(["backbone=timesformer_base", "data=shapes_video", "data.clip.zoom=[1,2]"]).data
    assert clips.clip is not None
    assert with_data(clips, ["data.clip.frame_step=2"]).clip == clips.clip.model_copy(update={"frame_step": 2})
    other = with_data(base, ["data=imagefolder", "data.root=/other"])
    assert (other.name, other.root, other.limit_test, other.mean) == ("imagefolder", "/other", None, (0.5, 0.5, 0.5))
    assert with_data(base, ["data=imagefolder", "data.root=x", "data.mean=[0.1,0.2,0.3]"]).mean == (0.1, 0.2, 0.3)
    with pytest.raises(UserError, match=r"data\.rot: no such key; nearest: data\.root"):
        with_data(base, ["data.rot=x"])
    with pytest.raises(UserError, match=r"data\.root: needs a value"):
        with_data(base, ["data=imagefolder"])

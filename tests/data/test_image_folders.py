"""Images in class folders and in Kaggle's layout: splits, labels, fingerprints, and errors."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import KAGGLE_IMAGES, MakeImages, folder_config
from PIL import Image
from timm.data import ImageNetInfo

from repro.config import Config
from repro.data.fingerprint import has_same_files, is_same_data
from repro.data.layouts import KAGGLE_LABELS
from repro.data.splits import Splits, load_splits
from repro.data.uint8_batch import Uint8Batch
from repro.errors import UserError
from repro.seeding import seeded

WNIDS = ImageNetInfo().label_names()


def load(config: Config) -> Splits:
    return load_splits(config.data, config.recipe, config.model)


def error(config: Config) -> str:
    with pytest.raises(UserError) as caught:
        load(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_folders_become_splits(flowers: Path) -> None:
    splits = load(folder_config(flowers))
    assert (len(splits.train), len(splits.test), splits.num_classes) == (10, 3, 2)
    assert splits.train.labels.tolist() == [0] * 6 + [1] * 4
    assert splits.test.labels.tolist() == [0, 0, 1]
    image, label = splits.train[9]
    assert (image.pixels.shape, image.pixels.dtype, label) == ((32, 32, 3), torch.uint8, 1)
    image, label = load(folder_config(flowers, **{"data.decoder": "pil"})).train[9]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 1)
    assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]{8}", splits.fingerprint)


def test_evaluation_is_resize_centre_normalise(flowers: Path) -> None:
    splits = load(folder_config(flowers))
    with Image.open(flowers / "val/aster/a.jpg") as picture:
        # floor(32 / 0.875) = 36 for the shorter side: 48x40 becomes 43x36, of which the middle 32x32 is taken.
        small = picture.resize((43, 36), Image.Resampling.BICUBIC)
    pixels = np.asarray(small)[2:34, 6:38] / 255
    expected = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert np.allclose(splits.test[0][0].permute(1, 2, 0), expected, atol=1e-5)
    assert splits.test[0][0].equal(splits.test[0][0])


def test_training_draws_from_the_global_generators_only(flowers: Path) -> None:
    train = load(folder_config(flowers, **{"recipe.random_erasing": 1.0})).train

    def draw(seed: int) -> torch.Tensor:
        with seeded("test", seed):
            return Uint8Batch.of([train[0][0]]).to_float(torch.device("cpu"))

    assert train.is_random
    assert draw(1).equal(draw(1))
    assert len({tuple(draw(seed).flatten().tolist()) for seed in range(8)}) == 8


def test_the_validation_folder_may_be_named_validation(flowers: Path) -> None:
    (flowers / "val").rename(flowers / "validation")
    assert len(load(folder_config(flowers)).test) == 3


def test_a_limit_keeps_both_classes(flowers: Path) -> None:
    splits = load(folder_config(flowers, **{"data.limit_train": 5}))
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert splits.train[4][1] == 1


def test_a_drawn_interpolation_evaluates_bicubic(flowers: Path) -> None:
    bicubic, drawn = (
        load(folder_config(flowers, **{"recipe.interpolation": name})).test[1][0] for name in ("bicubic", "random")
    )
    assert bicubic.equal(drawn)


def test_the_fingerprint_follows_names_and_sizes(flowers: Path) -> None:
    def fingerprint() -> str:
        return load(folder_config(flowers)).fingerprint

    seen = {fingerprint(), fingerprint()}
    assert len(seen) == 1
    with (flowers / "val/rose/a.jpg").open("ab") as stream:
        stream.write(b"\0")
    seen.add(fingerprint())
    (flowers / "train/rose/3.JPEG").rename(flowers / "train/rose/4.JPEG")
    seen.add(fingerprint())
    assert len(seen) == 3
    moved = flowers.rename(flowers.parent / "moved")
    assert load(folder_config(moved)).fingerprint in seen


def test_the_fingerprint_follows_contents(flowers: Path) -> None:
    before = load(folder_config(flowers)).fingerprint
    path = flowers / "val/rose/a.jpg"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    after = load(folder_config(flowers)).fingerprint
    assert has_same_files(before, after)
    assert not is_same_data(before, after)
    # Records of earlier versions know nothing of contents.
    assert is_same_data(before.partition("-")[0], after)
    assert is_same_data(after, before.partition("-")[0])
    assert not is_same_data("0" * 16, after)


def test_a_link_to_a_parent_folder_is_not_followed(flowers: Path) -> None:
    (flowers / "train/rose/loop").symlink_to(flowers / "train/rose")
    (flowers / "train/rose/more").symlink_to(flowers / "val/aster")
    assert load(folder_config(flowers)).train.labels.tolist() == [0] * 6 + [1] * 6


def test_names_are_ordered_by_their_bytes(flowers: Path, make_images: MakeImages) -> None:
    make_images(flowers / "train", ["aster/01.jpg", "aster/A.jpg"])
    names = load(folder_config(flowers)).train.files.names.tolist()  # type: ignore[attr-defined]
    assert names == sorted(names)


def test_folder_errors_name_the_expected_layout(flowers: Path) -> None:
    train, val = flowers / "train", flowers / "val"
    with pytest.raises(
        UserError, match=r"data\.root=null: data=imagefolder needs the folder that holds train/ and val/"
    ):
        folder_config(flowers, **{"data.root": "null"})
    assert error(folder_config(flowers / "no")).endswith("no: no such folder; expected one that holds train/ and val/")
    assert error(folder_config(flowers, **{"backbone.local.in_chans": 1})) == (
        "data=imagefolder: its images do not fit the config; set model.in_chans=3"
    )
    assert error(folder_config(flowers, **{"backbone.local.num_classes": 5})) == (
        "model.num_classes=5: data=imagefolder has 2 classes; set model.num_classes=2"
    )
    assert error(folder_config(flowers, **{"data.images_per_epoch": 11})).endswith("set data.images_per_epoch=10")
    assert error(folder_config(flowers, **{"recipe.rand_augment": "rond-m9"})) == (
        "recipe.rand_augment=rond-m9: not a policy of timm's; valid: null, or like rand-m9-mstd0.5-inc1"
    )

    (val / "rose").rename(val / "tulip")
    assert error(folder_config(flowers)) == (
        f"{val}: its classes are not those of {train}; missing: rose; extra: tulip"
    )
    for path in (val / "tulip").iterdir():
        path.rename(path.with_suffix(".txt"))
    assert error(folder_config(flowers)).startswith(f"{val}: no files in class folder tulip; valid endings: .jpg .jpeg")
    shutil.rmtree(val)
    assert error(folder_config(flowers)) == (
        f"{flowers}: no folder val or validation in it; expected {flowers}/val/<class>/*.jpg"
    )
    val.mkdir()
    assert error(folder_config(flowers)) == f"{val}: no class folders in it; expected {val}/<class>/*.jpg"
    shutil.rmtree(train)
    assert error(folder_config(flowers)) == (
        f"{train}: no such folder; expected {train}/<class>/*.jpg (or set data.root)"
    )


def test_a_file_that_is_gone_is_named(flowers: Path) -> None:
    broken = flowers / "train/rose/link.jpg"
    broken.symlink_to(flowers / "nowhere.jpg")
    assert error(folder_config(flowers)) == (
        f"{broken}: cannot be read (No such file or directory); restore the file or remove it"
    )


@pytest.fixture
def kaggle(tmp_path: Path, make_images: MakeImages) -> Path:
    """Kaggle's layout with two classes and three validation images, their labels not in the order of their names."""
    root = tmp_path / "kaggle"
    make_images(root / KAGGLE_IMAGES / "train", [f"{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS[5:7] for i in range(2)])
    make_images(root / KAGGLE_IMAGES / "val", [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 3)])
    write_labels(root / KAGGLE_LABELS, [(1, WNIDS[6]), (3, WNIDS[6]), (2, WNIDS[5])])
    return root


def write_labels(path: Path, labels: list[tuple[int, str]]) -> None:
    lines = [f"ILSVRC2012_val_{number:08},{wnid} 1 2 30 40 {wnid} 5 6 7 8 \n" for number, wnid in labels]
    path.write_text("".join(["ImageId,PredictionString\n", *lines]))


def imagenet_config(root: Path, **values: object) -> Config:
    return folder_config(root, data="imagenet", **values)


def test_kaggles_flat_validation_takes_its_labels_from_the_csv(kaggle: Path) -> None:
    splits = load(imagenet_config(kaggle))
    assert (len(splits.train), splits.num_classes) == (4, 2)
    assert splits.test.labels.tolist() == [1, 0, 1]
    assert splits.test[0][0].shape == (3, 32, 32)
    inner = load(imagenet_config(kaggle / KAGGLE_IMAGES))  # the csv is above
    assert (inner.test.labels.tolist(), inner.fingerprint) == ([1, 0, 1], splits.fingerprint)
    labels = kaggle / KAGGLE_LABELS
    labels.rename(kaggle / KAGGLE_IMAGES / labels.name)  # and now beside
    assert load(imagenet_config(kaggle / KAGGLE_IMAGES)).fingerprint == splits.fingerprint


def test_other_labels_change_the_fingerprint(kaggle: Path) -> None:
    before = load(imagenet_config(kaggle)).fingerprint
    write_labels(kaggle / KAGGLE_LABELS, [(1, WNIDS[6]), (2, WNIDS[6]), (3, WNIDS[5])])
    assert load(imagenet_config(kaggle)).fingerprint != before


@pytest.mark.usefixtures("empty_cache")
def test_a_lost_image_does_not_hide_other_labels(kaggle: Path) -> None:
    config = imagenet_config(kaggle)
    before = load(config).fingerprint
    (kaggle / KAGGLE_IMAGES / "val/ILSVRC2012_val_00000002.JPEG").write_bytes(b"")
    assert load_splits(config.data, config.recipe, config.model, before).fingerprint == before
    write_labels(kaggle / KAGGLE_LABELS, [(1, WNIDS[5]), (3, WNIDS[6]), (2, WNIDS[5])])
    assert load_splits(config.data, config.recipe, config.model, before).fingerprint != before


def test_class_folders_in_val_need_no_csv(kaggle: Path, make_images: MakeImages) -> None:
    (kaggle / KAGGLE_LABELS).unlink()
    val = kaggle / KAGGLE_IMAGES / "val"
    shutil.rmtree(val)
    make_images(val, [f"{wnid}/1.JPEG" for wnid in WNIDS[5:7]])
    assert load(imagenet_config(kaggle)).test.labels.tolist() == [0, 1]


def test_complete_imagenet_has_timms_classes(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, ["one.jpg"])
    for number, wnid in enumerate(reversed(WNIDS), start=1):
        for path in (tmp_path / "train" / wnid / "1.JPEG", tmp_path / "val" / f"ILSVRC2012_val_{number:08}.JPEG"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(tmp_path / "one.jpg")
    write_labels(tmp_path / KAGGLE_LABELS, list(enumerate(reversed(WNIDS), start=1)))
    config = imagenet_config(tmp_path, **{"backbone.local.num_classes": 1000})
    splits = load(config)
    assert splits.num_classes == 1000
    assert splits.train.labels.tolist() == list(range(1000))
    assert splits.test.labels.tolist() == list(range(999, -1, -1))

    (tmp_path / "val/ILSVRC2012_val_00000002.JPEG").unlink()
    assert error(config) == (
        f"{tmp_path}/val: no image for ILSVRC2012_val_00000002 of LOC_val_solution.csv; restore them"
    )
    (tmp_path / "train" / WNIDS[0]).rename(tmp_path / "train" / "n0")
    for wnid in WNIDS[7:12]:
        shutil.rmtree(tmp_path / "train" / wnid)
    assert error(config) == (
        f"{tmp_path}/train: class folders are not the 1000 wnids of ImageNet-1k; missing: {WNIDS[0]}, {WNIDS[7]}, "
        f"{WNIDS[8]} and 3 more; extra: n0 (data=imagefolder takes other classes)"
    )


def test_imagenet_errors_name_a_remedy(kaggle: Path, make_images: MakeImages) -> None:
    val, train, labels = (
        kaggle / KAGGLE_IMAGES / "val",
        kaggle / KAGGLE_IMAGES / "train",
        kaggle / "LOC_val_solution.csv",
    )
    assert error(imagenet_config(kaggle, **{"data.images_per_epoch": 1281167})) == (
        "data.images_per_epoch=1281167: data=imagenet holds 4 training images and the schedules count them; "
        "set data.images_per_epoch=4"
    )
    write_labels(labels, [(1, WNIDS[6]), (2, WNIDS[5]), (3, WNIDS[9])])
    assert error(imagenet_config(kaggle)) == (f"{val}: images of classes that are not those of {train}: {WNIDS[9]}")
    write_labels(labels, [(1, WNIDS[6])])
    assert error(imagenet_config(kaggle)) == (
        f"{labels}: no line for ILSVRC2012_val_00000002.JPEG, ILSVRC2012_val_00000003.JPEG of {val}; "
        "use the csv file of the same data"
    )
    labels.write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,\n")
    assert error(imagenet_config(kaggle)) == (f"{labels} line 2: no wnid in PredictionString; use Kaggle's file")
    labels.write_text("image,label\n")
    assert error(imagenet_config(kaggle)) == (
        f"{labels}: no column ImageId, PredictionString (but 'image'); expected a header with ImageId,PredictionString"
    )
    labels.unlink()
    assert error(imagenet_config(kaggle)) == (
        f"{val}: images without class folders need LOC_val_solution.csv in {val.parent} or above; copy it there, or "
        "sort the images into val/<wnid>/"
    )
    for path in val.iterdir():
        path.unlink()
    assert error(imagenet_config(kaggle)) == (
        f"{val}: no images and no class folders in it; expected *.JPEG or <wnid>/*.JPEG"
    )
    make_images(val, ["ILSVRC2012_val_00000001.JPEG"])
    write_labels(labels, [(1, WNIDS[6])])
    make_images(train, ["daisy/1.JPEG"])
    assert error(imagenet_config(kaggle)) == (
        f"{train}: class folders are not wnids of ImageNet-1k; extra: daisy (data=imagefolder takes other classes)"
    )

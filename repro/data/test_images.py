"""The test images alone: what an evaluation needs, without listing the training images beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from timm.data import ImageNetInfo

from repro.config import Data, Recipe
from repro.data.image_files import ImageFiles, Listing, fingerprint, list_shards
from repro.data.imagefolder import differences, list_images
from repro.data.imagenet import list_flat
from repro.data.places import KAGGLE_IMAGES, data_root, has_folders, has_shards, validation_folder
from repro.data.splits import Images, Lost, check_channels, limited, load_splits
from repro.data.transforms import evaluation_view
from repro.errors import UserError
from repro.geometry import Geometry

_OF_FOLDERS = ("imagefolder", "imagenet")


@dataclass(frozen=True)
class TestImages:
    """The test images of a data set.

    Attributes:
        every: how many there are; `images` are fewer where `data.limit_test` is set.
        fingerprint: 16 hex digits that change when the data do, not with `data.limit_test`.
        fingerprint_of: what it is of: `test images` alone, or `training and test images`.
        views: the images again, by name, as several views of each.
        skipped: what was left out because it cannot be read.
    """

    __test__ = False  # nothing for pytest to collect

    images: Images
    every: int
    num_classes: int
    fingerprint: str
    fingerprint_of: str
    views: Mapping[str, Images] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()


def load_test_images(data: Data, recipe: Recipe, model: Geometry) -> TestImages:
    """The test images that `data` names, through the evaluation transform.

    Of folders of images the validation images alone are listed: `train/` may be missing, and is never read through.
    Raises `UserError` where data and model disagree, as `load_splits` does.
    """
    whole = data.model_copy(update={"images_per_epoch": None, "limit_train": None, "limit_test": None})
    if data.name in _OF_FOLDERS:
        if data.clip is None and len(model.input_shape) == 4:
            raise UserError(f"data={data.name}: the model takes clips: set data=kinetics400 or data=shapes_video")
        found = _of_folders(whole, recipe, model)
    else:
        splits = load_splits(whole, recipe, model)
        found = TestImages(
            splits.test,
            len(splits.test),
            splits.num_classes,
            splits.fingerprint,
            "training and test images",
            splits.views,
            splits.skipped,
            splits.lost,
        )
    if found.num_classes != model.num_classes:
        raise UserError(
            f"data={data.name} has {found.num_classes} classes, the model {model.num_classes}: it was not trained on "
            "these; take other data"
        )
    return TestImages(
        limited(found.images, data.limit_test, "data.limit_test"),
        found.every,
        found.num_classes,
        found.fingerprint,
        found.fingerprint_of,
        {name: limited(images, data.limit_test, "data.limit_test") for name, images in found.views.items()},
        found.skipped,
        found.lost,
    )


def _of_folders(data: Data, recipe: Recipe, model: Geometry) -> TestImages:
    check_channels(data, model, channels=3)
    root = data_root(data)
    is_imagenet = data.name == "imagenet"
    if is_imagenet and (root / KAGGLE_IMAGES).is_dir():
        root = root / KAGGLE_IMAGES
    folder = validation_folder(root)
    wnids = tuple(ImageNetInfo().label_names())
    # An index means a class by its place among the training's.
    expected = _trained_classes(root) or (wnids if is_imagenet and model.num_classes == len(wnids) else None)
    if is_imagenet and not has_folders(folder) and not has_shards(folder):
        if expected is None:
            raise UserError(
                f"{root}: no train/ in it, whose class folders say which of the wnids are classes; make them"
            )
        listing = list_flat(folder, Listing(root / "train", expected, [], []))
    else:
        listing = list_images(folder)
        if expected is not None and listing.classes != expected:
            missing, extra = sorted(set(expected) - set(listing.classes)), sorted(set(listing.classes) - set(expected))
            raise UserError(f"{folder}: not the classes that are trained on; {differences(missing, extra)}")
    if is_imagenet and (foreign := sorted(set(listing.classes) - set(wnids))):
        raise UserError(f"{folder}: class folders are not wnids of ImageNet-1k; {differences([], foreign)}")
    images = ImageFiles.of(listing, evaluation_view(data, recipe, model), is_random=False)
    return TestImages(images, len(images), len(listing.classes), fingerprint(listing), "test images")


def _trained_classes(root: Path) -> tuple[str, ...] | None:
    """The names of the class folders in `train/`, or of the classes in its shards, in order; None without such."""
    train = root / "train"
    if not train.is_dir():
        return None
    if (packed := list_shards(train)) is not None:
        return packed.classes
    with os.scandir(train) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.is_dir())) or None

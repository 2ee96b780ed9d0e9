"""Any data set in torchvision's layout: ROOT/train/<class>/*.jpg and ROOT/val/<class>/*.jpg."""

from __future__ import annotations

from pathlib import Path

from repro.config import Data, ImageGeometry, Recipe
from repro.data.image_files import ImageFiles, Listing, fingerprint, list_class_folders
from repro.data.splits import Splits, check_channels, first_few
from repro.data.transforms import evaluation_transform, training_transform
from repro.errors import UserError

VALIDATION = ("val", "validation")


def load(data: Data, recipe: Recipe, model: ImageGeometry) -> Splits:
    """The training images with the recipe's augmentation, the validation images as test images.

    Raises `UserError` for a missing folder, no classes, a class without images, or classes that differ.
    """
    root = data_root(data)
    train = list_class_folders(root / "train")
    test = list_class_folders(validation_folder(root))
    return make_splits(data, recipe, model, train, test)


def data_root(data: Data) -> Path:
    """The folder `data.root`; raises `UserError` where it is not set or not there."""
    if data.root is None:
        raise UserError(f"data.root=null: data={data.name} needs the folder that holds train/ and val/; set data.root")
    root = Path(data.root).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"data.root={data.root}: no such folder; expected one that holds train/ and val/")
    return root


def validation_folder(root: Path) -> Path:
    """`root/val` or `root/validation`; raises `UserError` where neither is there."""
    for name in VALIDATION:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root}: no folder {' or '.join(VALIDATION)} in it; expected {root}/val/<class>/*.jpg")


def make_splits(data: Data, recipe: Recipe, model: ImageGeometry, train: Listing, test: Listing) -> Splits:
    """Splits of two listings; raises `UserError` unless both have the same classes."""
    check_channels(data, model, channels=3)
    missing = sorted(set(train.classes) - set(test.classes))
    extra = sorted(set(test.classes) - set(train.classes))
    if missing or extra:
        raise UserError(
            f"{test.folder}: its classes are not those of {train.folder}; {differences(missing, extra)}; "
            f"make the class folders of both the same"
        )
    return Splits(
        train=ImageFiles.of(train, training_transform(data, recipe, model), is_random=True),
        test=ImageFiles.of(test, evaluation_transform(data, recipe, model), is_random=False),
        num_classes=len(train.classes),
        fingerprint=fingerprint(train, test),
    )


def differences(missing: list[str], extra: list[str]) -> str:
    """`missing: a, b; extra: c`."""
    named = (("missing", missing), ("extra", extra))
    return "; ".join(f"{word}: {first_few(names)}" for word, names in named if names)

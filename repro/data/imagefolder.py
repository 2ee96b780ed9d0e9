"""Any data set in torchvision's layout: ROOT/train/<class>/*.jpg and ROOT/val/<class>/*.jpg."""

from __future__ import annotations

from repro.config import Data, Recipe
from repro.data.image_files import ImageFiles, Listing, fingerprint, list_class_folders
from repro.data.places import find_imagefolder, validation_folder
from repro.data.splits import Splits, check_channels, first_few
from repro.data.transforms import evaluation_transform, training_transform
from repro.errors import UserError
from repro.geometry import Geometry


def load(data: Data, recipe: Recipe, model: Geometry) -> Splits:
    """The training images with the recipe's augmentation, the validation images as test images.

    Raises `UserError` for a missing folder, no classes, a class without images, or classes that differ.
    """
    root = find_imagefolder(data)
    train = list_class_folders(root / "train")
    test = list_class_folders(validation_folder(root))
    return make_splits(data, recipe, model, train, test)


def make_splits(data: Data, recipe: Recipe, model: Geometry, train: Listing, test: Listing) -> Splits:
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

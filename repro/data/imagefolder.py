"""Any data set in torchvision's layout, ROOT/train/<class>/*.jpg and ROOT/val/<class>/*.jpg, or in shards of that."""

from __future__ import annotations

from pathlib import Path

from repro.config import Data, Recipe
from repro.data.image_files import ImageFiles, Listing, fingerprint, list_class_folders, list_shards
from repro.data.places import find_imagefolder, validation_folder
from repro.data.splits import Splits, check_channels, first_few
from repro.data.transforms import evaluation_view, training_view
from repro.errors import UserError
from repro.geometry import Geometry


def load(data: Data, recipe: Recipe, model: Geometry) -> Splits:
    """The training images with the recipe's augmentation, the validation images as test images.

    Raises `UserError` for a missing folder, no classes, a class without images, or classes that differ.
    """
    root = find_imagefolder(data)
    train, test = list_images(root / "train"), list_images(validation_folder(root))
    return make_splits(data, recipe, model, train, test)


def list_images(folder: Path) -> Listing:
    """The images of a split: in the shards of `folder`, or else in its class folders."""
    return list_shards(folder) or list_class_folders(folder)


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
        train=ImageFiles.of(train, training_view(data, recipe, model), is_random=True),
        test=ImageFiles.of(test, evaluation_view(data, recipe, model), is_random=False),
        num_classes=len(train.classes),
        fingerprint=fingerprint(train, test),
        decoder=data.decoder,
        in_shards=train.shards is not None,
    )


def differences(missing: list[str], extra: list[str]) -> str:
    """`missing: a, b; extra: c`."""
    named = (("missing", missing), ("extra", extra))
    return "; ".join(f"{word}: {first_few(names)}" for word, names in named if names)

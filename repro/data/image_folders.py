"""The data sets `imagenet` and `imagefolder`: class folders, Kaggle's download of ImageNet, or shards of either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry
from repro.data.decoding import decode
from repro.data.fingerprint import fingerprint
from repro.data.folder_files import FolderFiles
from repro.data.layouts import class_folders, find_split, image_split
from repro.data.listing import Listing, list_images, read_kaggle_labels
from repro.data.saved_listing import resume_listings, save_listing
from repro.data.shards import Shards
from repro.data.splits import EvalSplit, Splits
from repro.data.transforms import evaluation_transform, training_transform
from repro.data.uint8_batch import Uint8Image
from repro.data.unreadable_files import UnreadableFiles
from repro.errors import UserError, first_few

IMAGENET_CLASSES = 1000

Transform = Callable[[Image.Image], Tensor | Uint8Image]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images that are read, decoded and transformed when they are indexed."""

    files: FolderFiles | Shards
    labels: Tensor  # the class of each image, int64 (images,)
    transform: Transform  # takes a decoded image of any mode
    is_random: bool  # whether the transform draws from the global random generators
    unreadable: UnreadableFiles  # images that became unreadable; others of their class replace them
    positions: Tensor  # the positions of the images in `unreadable`, int64 (images,)

    @classmethod
    def of(
        cls,
        listing: Listing,
        class_names: Sequence[str],
        transform: Transform,
        is_random: bool,
        unreadable: Sequence[int] = (),
    ) -> ImageFiles:
        """Return the images of a listing, labelled by indices into `class_names`."""
        labels, positions = torch.tensor(listing.labels(class_names)), torch.arange(len(listing))
        marks = UnreadableFiles(len(listing), unreadable)
        return cls(listing.files(), labels, transform, is_random, marks, positions)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor | Uint8Image, int]:
        image, label = self.unreadable.read(index, self.labels, self.positions, self._decoded, self.is_random)
        return self.transform(image), label

    def take(self, indices: Tensor) -> ImageFiles:
        files = self.files.take(indices.numpy())
        return replace(self, files=files, labels=self.labels[indices], positions=self.positions[indices])

    def _decoded(self, index: int) -> Image.Image:
        return decode(self.files.read(index), self.files.name(index))


def load(data: Data, recipe: Recipe, model: Geometry, trained_on: str | None = None) -> Splits:
    """Load the training images with the recipe's augmentation, and the validation images as test images.

    Class indices follow the sorted class names. For `imagenet`, these have to be timm's ImageNet-1k wnids: all 1,000
    for a model of 1,000 classes, any subset for a smaller model. Raises `UserError` for a missing folder, a class
    without images, or classes that differ between the splits.
    """
    train, test = list_images(find_split(data, "train")), list_images(find_split(data, "test"))
    classes = train.class_names()
    if data.name == "imagenet":
        _check_wnids(train, is_complete=model.num_classes == IMAGENET_CLASSES)
    _check_test_classes(test, classes, f"those of {train.folder}")
    now = fingerprint(classes, train, test)
    save_listing(now, train, test)
    resumed = None
    if trained_on not in (None, now):
        resumed = resume_listings(str(trained_on), train, test, are_videos=False)
    (train, train_lost), (test, test_lost) = resumed or ((train, ()), (test, ()))
    train_images = ImageFiles.of(train, classes, training_transform(data, recipe, model), True, train_lost)
    test_images = ImageFiles.of(test, classes, evaluation_transform(data, recipe, model), False, test_lost)
    return Splits(
        train=train_images,
        test=test_images,
        num_classes=len(classes),
        fingerprint=str(trained_on) if resumed else now,
        decoder=data.decoder,
        in_shards=train.shards is not None,
        unreadable=(train_images.unreadable, test_images.unreadable),
        class_names=tuple(classes),
    )


def load_validation(data: Data, recipe: Recipe, model: Geometry) -> EvalSplit:
    """Load only the validation images. `train/` may be missing; otherwise it only gives the classes.

    Raises `UserError` if the classes differ from those in `train/` or, for `imagenet` without `train/`, from those of
    ImageNet.
    """
    test = list_images(find_split(data, "test"))
    classes = _training_classes(test.folder.parent / "train")
    if data.name == "imagenet":
        is_complete = classes is None and model.num_classes == IMAGENET_CLASSES
        _check_wnids(test, is_complete)
        classes = ImageNetInfo().label_names() if is_complete else classes
    if classes is not None:
        _check_test_classes(test, classes, "those that are trained on")
    elif test.table is not None:
        raise UserError(f"{test.folder.parent}: no train/ in it, whose class folders give the classes; create them")
    else:
        classes = test.class_names()
    images = ImageFiles.of(test, classes, evaluation_transform(data, recipe, model), is_random=False)
    return EvalSplit(
        images=images,
        total=len(images),
        num_classes=len(classes),
        fingerprint=fingerprint(classes, test),
        fingerprint_of="test images",
        unreadable=(images.unreadable,),
        class_names=tuple(classes),
    )


def _training_classes(folder: Path) -> list[str] | None:
    """Return the names of the class folders in `train/`, or of the classes in its shards; None without the folder."""
    if classes := class_folders(folder):
        return classes
    return list_images(image_split(folder)).class_names() if folder.is_dir() else None


def _check_wnids(listing: Listing, is_complete: bool) -> None:
    # Both lists are sorted, so equal sets give the same class indices as every published ImageNet-1k checkpoint.
    wnids = ImageNetInfo().label_names()
    missing = set(wnids) - set(listing.classes) if is_complete else set()
    extra = set(listing.classes) - set(wnids)
    if missing or extra:
        expected = f"the {IMAGENET_CLASSES} wnids" if is_complete else "wnids"
        raise UserError(
            f"{listing.folder}: class folders are not {expected} of ImageNet-1k; {_differences(missing, extra)} "
            "(data=imagefolder takes other classes)"
        )


def _check_test_classes(test: Listing, classes: Sequence[str], expected: str) -> None:
    """Raise `UserError` unless the test images have exactly these classes, or some of them in Kaggle's flat folder."""
    missing, extra = set(classes) - set(test.classes), set(test.classes) - set(classes)
    if test.table is None and (missing or extra):
        raise UserError(f"{test.folder}: its classes are not {expected}; {_differences(missing, extra)}")
    if extra:
        raise UserError(f"{test.folder}: images of classes that are not {expected}: {first_few(sorted(extra))}")
    if test.table is not None and len(classes) == IMAGENET_CLASSES:
        absent = sorted(set(read_kaggle_labels(test.table)) - {Path(name).stem for name in test.names})
        if absent:
            raise UserError(f"{test.folder}: no image for {first_few(absent)} of {test.table.name}; restore them")


def _differences(missing: set[str], extra: set[str]) -> str:
    parts = (("missing", missing), ("extra", extra))
    return "; ".join(f"{word}: {first_few(sorted(names))}" for word, names in parts if names)

"""ImageNet-1k as people have it: folders of one folder per class, or Kaggle's download."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from timm.data import ImageNetInfo

from repro.config import Data, Recipe
from repro.data.image_files import Listing, is_image
from repro.data.imagefolder import differences, list_images, make_splits
from repro.data.places import (
    data_root,
    has_folders,
    has_shards,
    imagenet_root,
    kaggle_labels,
    no_images,
    validation_folder,
)
from repro.data.splits import Splits, first_few
from repro.errors import UserError
from repro.geometry import Geometry

NUM_CLASSES = 1000


def load(data: Data, recipe: Recipe, model: Geometry) -> Splits:
    """ImageNet's training images with the recipe's augmentation, its validation images as test images.

    `data.root` holds `train/` and `val/`, in class folders or in shards, or is the root of Kaggle's download, or the
    CLS-LOC folder in it. A flat `val/` takes its labels from LOC_val_solution.csv, found in `val/`'s parents. The
    classes are timm's ImageNet-1k wnids: all 1,000 of them for a model of 1,000 classes, some of them for a smaller
    one. Raises `UserError` for anything else.
    """
    train, test = listings(data_root(data), model.num_classes)
    return make_splits(data, recipe, model, train, test)


def listings(root: Path, num_classes: int | None = None) -> tuple[Listing, Listing]:
    """Training and validation images below `root`; their classes are ImageNet's for a model of `num_classes`.

    Where that is None, they may be any.
    """
    root = imagenet_root(root)
    train = list_images(root / "train")
    if num_classes is not None:
        _check_wnids(train, is_whole=num_classes == NUM_CLASSES)
    folder = validation_folder(root)
    is_flat = not has_folders(folder) and not has_shards(folder)
    return train, list_flat(folder, train) if is_flat else list_images(folder)


def _check_wnids(train: Listing, is_whole: bool) -> None:
    # Both lists are sorted, so equal sets mean equal indices: those of every published ImageNet-1k checkpoint.
    wnids = ImageNetInfo().label_names()
    missing = sorted(set(wnids) - set(train.classes)) if is_whole else []
    extra = sorted(set(train.classes) - set(wnids))
    if missing or extra:
        expected = "the 1000 wnids" if is_whole else "wnids"
        raise UserError(
            f"{train.folder}: class folders are not {expected} of ImageNet-1k; {differences(missing, extra)} "
            f"(data=imagefolder takes other classes)"
        )


def list_flat(folder: Path, train: Listing) -> Listing:
    """Kaggle's validation images, which lie in one folder, with the labels of its csv file.

    Of `train` its folder and its classes are wanted. Raises `UserError` for images without a label, or a label without
    its images or its class.
    """
    names = sorted(name for name in os.listdir(folder) if is_image(name))
    if not names:
        raise no_images(folder)
    path = kaggle_labels(folder)
    wnids = _read_labels(path)
    unlabelled = [name for name in names if Path(name).stem not in wnids]
    if unlabelled:
        raise UserError(f"{path}: no line for {first_few(unlabelled)} of {folder}; use the csv file of the same data")
    stems = {Path(name).stem for name in names}
    is_whole = len(train.classes) == NUM_CLASSES
    absent = [image for image in wnids if image not in stems] if is_whole else []
    if absent:
        raise UserError(f"{folder}: no image for {first_few(absent)} of {path.name}; restore the missing images")
    index = {wnid: label for label, wnid in enumerate(train.classes)}
    foreign = [name for name in names if wnids[Path(name).stem] not in index]
    if foreign:
        raise UserError(f"{folder}: no class folder in {train.folder} for {first_few(foreign)}; take these images away")
    labels = [index[wnids[Path(name).stem]] for name in names]
    return Listing(folder, tuple(train.classes[label] for label in sorted(set(labels))), names, labels)


def _read_labels(path: Path) -> dict[str, str]:
    """The wnid of every image: PredictionString is `wnid x y x y`, repeated for every box of that class."""
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"ImageId", "PredictionString"} <= set(reader.fieldnames or ()):
            raise UserError(f"{path}: expected the columns ImageId,PredictionString; take Kaggle's file")
        labels = {}
        for line in reader:
            words = (line["PredictionString"] or "").split()
            if not words:
                raise UserError(f"{path} line {reader.line_num}: no wnid in PredictionString; take Kaggle's file")
            labels[line["ImageId"]] = words[0]
    return labels

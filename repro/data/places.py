"""Where the files of a data set have to be. Looked at, not read: no torch, so that `repro doctor` may ask too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from repro.config import Data
from repro.errors import UserError

VALIDATION = ("val", "validation")
VIDEO_VALIDATION = (*VALIDATION, "validate")  # Kinetics' own csv file has that name
KAGGLE_IMAGES = Path("ILSVRC/Data/CLS-LOC")
KAGGLE_LABELS = "LOC_val_solution.csv"
SHARDS, SHARDS_INDEX = "*.tar", "index.npz"


def find_data(data: Data) -> Path | None:
    """The folder that has the files of `data`; None for what ships with a dependency, or is drawn where it is needed.

    Raises `UserError` for a missing folder, or one that is not laid out as that data set is: as loading it would.
    """
    return FINDERS[data.name](data)


def data_root(data: Data) -> Path:
    """The folder `data.root`; raises `UserError` where it is not set or not there."""
    if data.root is None:
        raise UserError(f"data.root=null: data={data.name} needs the folder that holds train/ and val/; set data.root")
    root = Path(data.root).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"data.root={data.root}: no such folder; expected one that holds train/ and val/")
    return root


def has_folders(folder: Path) -> bool:
    """Whether there is a folder in `folder`."""
    with os.scandir(folder) as entries:
        return any(entry.is_dir() for entry in entries)


def has_shards(folder: Path) -> bool:
    """Whether the images of `folder` are in tar files: they have an index, or there is nothing else."""
    if (folder / SHARDS_INDEX).is_file():
        return True
    return folder.is_dir() and next(folder.glob(SHARDS), None) is not None and not has_folders(folder)


def check_images(folder: Path) -> None:
    """Raise `UserError` for a missing folder, or one with neither shards and their index nor class folders."""
    if not has_shards(folder):
        check_class_folders(folder)
    elif not (folder / SHARDS_INDEX).is_file():
        raise UserError(f"{folder}: tar files without {SHARDS_INDEX}; repro shards --index {folder}")


def check_class_folders(folder: Path) -> None:
    """Raise `UserError` for a missing folder, or one without class folders."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {folder}/<class>/*.jpg (or set data.root)")
    if not has_folders(folder):
        raise UserError(f"{folder}: no class folders in it; expected {folder}/<class>/*.jpg")


def validation_folder(root: Path) -> Path:
    """`root/val` or `root/validation`; raises `UserError` where neither is there."""
    for name in VALIDATION:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root}: no folder {' or '.join(VALIDATION)} in it; expected {root}/val/<class>/*.jpg")


def kaggle_labels(folder: Path) -> Path:
    """The labels of Kaggle's validation images, which lie in `folder` itself; raises `UserError` without any."""
    # val, CLS-LOC, Data, ILSVRC, and Kaggle's root.
    for place in (folder, *list(folder.parents)[: len(KAGGLE_IMAGES.parts) + 1]):
        if (place / KAGGLE_LABELS).is_file():
            return place / KAGGLE_LABELS
    raise UserError(
        f"{folder}: images without class folders need {KAGGLE_LABELS} in {folder.parent} or above; copy it there, or "
        f"sort the images into {folder.name}/<wnid>/"
    )


def find_imagefolder(data: Data) -> Path:
    """`data.root`, which has `train/<class>/` and `val/<class>/`, or shards of them."""
    root = data_root(data)
    check_images(root / "train")
    check_images(validation_folder(root))
    return root


def find_imagenet(data: Data) -> Path:
    """The folder of `train/` and `val/` in `data.root`: itself, or CLS-LOC in Kaggle's download."""
    return imagenet_root(data_root(data))


def imagenet_root(root: Path) -> Path:
    """The same of any folder. Raises `UserError` where it is not laid out like ImageNet."""
    if (root / KAGGLE_IMAGES).is_dir():
        root = root / KAGGLE_IMAGES
    check_images(root / "train")
    folder = validation_folder(root)
    if not has_folders(folder) and not has_shards(folder):
        if not any(folder.iterdir()):
            raise no_images(folder)
        kaggle_labels(folder)
    return root


def no_images(folder: Path) -> UserError:
    """What to say of a validation folder of ImageNet's without images."""
    return UserError(f"{folder}: no images and no class folders in it; expected *.JPEG or <wnid>/*.JPEG")


def find_kinetics(data: Data) -> Path:
    """`data.root`, which has class folders of videos, or lists of them, for both splits."""
    root = data_root(data)
    for split in ("train", video_validation(root)):
        check_listed(root, split)
    return root


def video_validation(root: Path) -> str:
    """`val`, `validation` or `validate`, as a folder or a list; raises `UserError` where none is there."""
    for name in VIDEO_VALIDATION:
        if (root / name).is_dir() or (root / f"{name}.csv").is_file():
            return name
    raise UserError(f"{root}: no {' or '.join(VIDEO_VALIDATION)}, folder or csv, in it")


def check_listed(root: Path, split: str) -> None:
    """Raise `UserError` where the videos of a split are neither listed in `<split>.csv` nor in class folders."""
    folder = root / split
    if not (root / f"{split}.csv").is_file() and (not folder.is_dir() or not has_folders(folder)):
        raise UserError(f"{root}: neither {split}.csv nor class folders in {split}/; expected {split}/<class>/*.mp4")


def _needs_none(_: Data) -> None:
    """digits ships with scikit-learn; shapes are drawn, and kept in `data.root` where that can be written."""


FINDERS: Mapping[str, Callable[[Data], Path | None]] = {
    "digits": _needs_none,
    "imagefolder": find_imagefolder,
    "imagenet": find_imagenet,
    "kinetics400": find_kinetics,
    "shapes": _needs_none,
    "shapes_video": _needs_none,
}

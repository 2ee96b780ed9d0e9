"""The folder layouts of `data.root`: which entries are data, and where the files of each split are.

This module only lists folders. It opens no file and does not import torch, so that `repro doctor` and a launch can
check a data folder quickly.
"""

from __future__ import annotations

import os
import posixpath
import shlex
from dataclasses import dataclass
from pathlib import Path

from repro.config import GENERATED, Data
from repro.errors import UserError
from repro.locations import expand_home

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
# Files and folders that operating systems, file servers and archivers add, in addition to hidden ones.
_NOT_DATA = {"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found", "Thumbs.db"}
SHARDS, TARS = ".zip", (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

KAGGLE_IMAGES = Path("ILSVRC/Data/CLS-LOC")
KAGGLE_LABELS = "LOC_val_solution.csv"

VIDEOS = ("kinetics400", "shapes_video")
_VALIDATION = ("val", "validation")
_VIDEO_VALIDATION = (*_VALIDATION, "validate")  # the CSV file that Kinetics publishes is named validate.csv


@dataclass(frozen=True)
class Archive:
    """A data set that is published as one file."""

    file: str
    folder: str  # the folder in the archive
    address: str  # the URL of the folder with the file


ARCHIVES = {
    "cifar10": Archive("cifar-10-python.tar.gz", "cifar-10-batches-py", "https://www.cs.toronto.edu/~kriz/"),
    "cifar100": Archive("cifar-100-python.tar.gz", "cifar-100-python", "https://www.cs.toronto.edu/~kriz/"),
}


@dataclass(frozen=True)
class Split:
    """Where the files of a split are."""

    folder: Path  # the folder to which file names are relative
    table: Path | None = None  # the CSV file with the class of each file; None if class folders give the classes
    is_packed: bool = False  # whether the files are in shards


def find_data(data: Data) -> Path | None:
    """Return the folder that holds the splits of a data set; None if it is generated.

    Raises `UserError` if the folder, one of its splits or its archive is missing or has another layout.
    """
    if data.name in GENERATED:
        return None
    if data.name in ARCHIVES:
        return _find_archive(data)
    find_split(data, "train")
    find_split(data, "test")
    return _splits_folder(data)


def _find_archive(data: Data) -> Path:
    """Return the folder that holds, or with `data.download` will hold, a published archive or its unpacked folder."""
    archive, root = ARCHIVES[data.name], Path(expand_home(str(data.root)))
    if not ((root / archive.folder).is_dir() or (root / archive.file).is_file() or data.download):
        raise UserError(
            f"data.root={root}: neither {archive.file} nor {archive.folder}/ in it; put the archive there "
            f"({archive.address}{archive.file}), or set data.download=true"
        )
    return root


def find_split(data: Data, split: str) -> Split:
    """Find the files of a split, `train` or `test`. Raises `UserError` if it is missing or has another layout."""
    folder = _splits_folder(data)
    if data.name in VIDEOS:
        return _video_split(folder, "train" if split == "train" else _video_validation(folder))
    if split == "train":
        return image_split(folder / "train")
    return image_split(validation_folder(folder), may_be_flat=data.name == "imagenet")


def image_split(folder: Path, may_be_flat: bool = False, otherwise: str = " (or set data.root)") -> Split:
    """Find the images of one split: class folders, shards or, if `may_be_flat`, one folder with Kaggle's CSV of labels.

    Raises `UserError` if `folder` is missing or holds none of these; `otherwise` is another way out, for the message.
    """
    if not folder.is_dir():
        expected = _unpack(folder.parent, folder.name) or f"expected {folder}/<class>/*.jpg{otherwise}"
        raise UserError(f"{folder}: no such folder; {expected}")
    if _has_classes(folder):
        return Split(folder)
    files = visible_files(folder)
    if any(name.endswith(SHARDS) for name in files):
        return Split(folder, is_packed=True)
    if any(name.endswith(TARS) for name in files):
        root = shlex.quote(str(folder.parent))
        raise UserError(f"{folder}: tar files are not read directly; repro shards {root} OUT converts them")
    if not may_be_flat:
        raise UserError(f"{folder}: no class folders in it; expected {folder}/<class>/*.jpg")
    if not any(is_image(name) for name in files):
        raise UserError(f"{folder}: no images and no class folders in it; expected *.JPEG or <wnid>/*.JPEG")
    return Split(folder, table=kaggle_labels(folder))


def imagenet_folder(root: Path) -> Path:
    """Return the folder of `train/` and `val/`: CLS-LOC in Kaggle's download, otherwise `root` itself."""
    return root / KAGGLE_IMAGES if (root / KAGGLE_IMAGES).is_dir() else root


def validation_folder(root: Path) -> Path:
    """Return `root/val` or `root/validation`. Raises `UserError` if neither exists."""
    for name in _VALIDATION:
        if (root / name).is_dir():
            return root / name
    expected = _unpack(root, "val") or f"expected {root}/val/<class>/*.jpg"
    raise UserError(f"{root}: no folder {' or '.join(_VALIDATION)} in it; {expected}")


def kaggle_labels(folder: Path) -> Path:
    """Find Kaggle's CSV file of validation labels in `folder` or above. Raises `UserError` if there is none."""
    # This looks at most in val, CLS-LOC, Data, ILSVRC, and the root of Kaggle's download.
    for parent in (folder, *list(folder.parents)[: len(KAGGLE_IMAGES.parts) + 1]):
        if (parent / KAGGLE_LABELS).is_file():
            return parent / KAGGLE_LABELS
    raise UserError(
        f"{folder}: images without class folders need {KAGGLE_LABELS} in {folder.parent} or above; copy it there, or "
        f"sort the images into {folder.name}/<wnid>/"
    )


def is_data(name: str) -> bool:
    """Return whether a file or folder may hold data, by its name. Hidden ones (`._0.jpg`) and `_NOT_DATA` do not."""
    return not name.startswith(".") and name not in _NOT_DATA


def is_data_path(path: str) -> bool:
    """Return whether `is_data` holds for every part of a relative path."""
    return all(map(is_data, posixpath.normpath(path).split("/")))


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders in `folder`, sorted; none if the folder is missing."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_data(entry.name) and entry.is_dir())


def visible_files(folder: Path) -> list[str]:
    """Return the names of the data files in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_data(entry.name) and not entry.is_dir())


def is_image(name: str) -> bool:
    """Return whether a file name has the ending of an image."""
    return name.lower().endswith(IMAGE_ENDINGS)


def _has_classes(folder: Path) -> bool:
    """Return whether `folder` has class folders. Raises `UserError` if they are a level down, as in `train/train/`."""
    classes = class_folders(folder)
    if len(classes) == 1 and class_folders(folder / classes[0]) and not visible_files(folder / classes[0]):
        raise UserError(f"{folder}: its only folder, {classes[0]}, holds folders and no files; move them to {folder}")
    return bool(classes)


def _unpack(root: Path, split: str) -> str:
    """Return how to unpack the tar file of a split, such as ILSVRC2012_img_train.tar; empty if `root` has none."""
    files = visible_files(root) if root.is_dir() else []
    tar = next((name for name in files if name.endswith(TARS) and split in name.lower()), None)
    if tar is None:
        return ""
    folder = shlex.quote(str(root / split))
    return f"unpack {tar}: mkdir {folder} && tar -xf {shlex.quote(str(root / tar))} -C {folder}"


def _splits_folder(data: Data) -> Path:
    """Return the folder that holds the splits: `data.root`, or CLS-LOC in Kaggle's download of ImageNet."""
    if data.root is None:
        raise UserError(f"data.root=null: data={data.name} needs the folder that holds train/ and val/; set data.root")
    root = Path(expand_home(data.root)).absolute()
    if not root.is_dir():
        raise UserError(f"data.root={data.root}: no such folder; expected one that holds train/ and val/")
    return imagenet_folder(root) if data.name == "imagenet" else root


def _video_validation(root: Path) -> str:
    for name in _VIDEO_VALIDATION:
        if (root / name).is_dir() or (root / f"{name}.csv").is_file():
            return name
    raise UserError(f"{root}: no {' or '.join(_VIDEO_VALIDATION)}, folder or csv, in it")


def _video_split(root: Path, name: str) -> Split:
    table = root / f"{name}.csv"
    if table.is_file():
        return Split(root, table)
    if not _has_classes(root / name):
        raise UserError(f"{root}: neither {name}.csv nor class folders in {name}/; expected {name}/<class>/*.mp4")
    return Split(root / name)

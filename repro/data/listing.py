"""Lists the files of a split, with the class of each. This module does not import torch: `repro shards` uses it too."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from repro.csv_files import read_csv, read_text, split_lines
from repro.data.folder_files import FolderFiles
from repro.data.layouts import (
    IMAGE_ENDINGS,
    VIDEO_ENDINGS,
    Split,
    class_folders,
    is_data,
    is_image,
    kaggle_labels,
    visible_files,
)
from repro.data.shards import Shards, open_shards
from repro.errors import UserError, count_of, first_few

STAT_THREADS = 16
_TOLERATED_SHARE = 1000  # during a run, one file in this many may become unreadable, but at least one
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


@dataclass(frozen=True)
class Listing:
    """The files of a split, in a fixed order."""

    folder: Path  # the folder to which names are relative
    names: Sequence[str]  # those from a CSV file may be absolute
    classes: Sequence[str]  # the name of the class of each file
    table: Path | None = None  # the CSV file with the classes; None if class folders give them
    shards: Shards | None = None  # the same files in shards, in the same order, if they are packed
    recorded_lengths: Sequence[int] | None = None  # `lengths`, if they are not the sizes of the files on disk
    skipped: tuple[str, ...] = ()  # name of each file that was left out as unreadable, and the reason

    def __len__(self) -> int:
        return len(self.names)

    def class_names(self) -> list[str]:
        """Return the classes that have a file, sorted."""
        return sorted(set(self.classes))

    def labels(self, class_names: Sequence[str]) -> list[int]:
        """Return the class of each file as an index into `class_names`."""
        index = {name: number for number, name in enumerate(class_names)}
        return [index[name] for name in self.classes]

    def files(self) -> FolderFiles | Shards:
        """Return the files, which can be read by position."""
        return FolderFiles.of(self.folder, self.names) if self.shards is None else self.shards

    @cached_property
    def lengths(self) -> Sequence[int]:
        """The size of each image in bytes, or the number of frames of each inspected video.

        Raises `UserError` for an image that is gone.
        """
        if self.recorded_lengths is not None:
            return self.recorded_lengths
        if self.shards is not None:
            return [int(size) for size in self.shards.sizes]
        # A network file system has a high latency, but serves many requests at once.
        step = max(1, -(-len(self.names) // STAT_THREADS))
        parts = [self.names[start : start + step] for start in range(0, len(self.names), step)]
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            return [size for part in pool.map(partial(_sizes, self.folder), parts) for size in part]


def list_images(split: Split) -> Listing:
    """List the images of a split, sorted by class folder, then by name.

    Raises `UserError` for a class folder without images, and for an image that Kaggle's CSV file does not name.
    """
    shards = None
    if split.is_packed:
        names, shards = open_shards(split.folder)
        rows = sorted(range(len(names)), key=lambda row: _order(names[row]))
        names, shards = [names[row] for row in rows], shards.take(np.array(rows))
    elif split.table is None:
        names = _in_class_folders(split.folder, IMAGE_ENDINGS)
    else:
        names = [name for name in visible_files(split.folder) if is_image(name)]
    table = split.table
    if table is None and not all("/" in name for name in names):  # shards of Kaggle's flat folder
        table = kaggle_labels(split.folder)
    classes = _folder_classes(names) if table is None else _kaggle_classes(split.folder, names, table)
    return Listing(split.folder, names, classes, table, shards)


def list_videos(split: Split) -> Listing:
    """List the videos of a split: those in class folders, or those in the lines of its CSV file.

    A line is a path (relative to the folder of the CSV file, or absolute) and a class, separated by a space, comma,
    semicolon or tab, as for SlowFast and TimeSformer. Alternatively, the CSV file has the columns that Kinetics
    publishes, for files `<youtube_id>_<start>_<end>.mp4` (six digits each) in `<split>/` or its class folders. Raises
    `UserError` for a class folder without videos, and for any other CSV file.
    """
    if split.table is None:
        names = _in_class_folders(split.folder, VIDEO_ENDINGS)
        return Listing(split.folder, names, _folder_classes(names))
    pairs = list(_video_table(split.folder, split.table))
    if not pairs:
        raise UserError(f"{split.table}: no videos in it")
    return Listing(split.folder, [name for name, _ in pairs], [label for _, label in pairs], split.table)


def count_files(split: Split, at_most: int) -> int:
    """Count the images or videos in class folders, up to `at_most`. For shards and CSV files, return `at_most`."""
    if split.table is not None or split.is_packed:
        return at_most
    endings = IMAGE_ENDINGS + VIDEO_ENDINGS
    files = (name for each in class_folders(split.folder) for name in _files_below(split.folder, each, endings))
    return sum(1 for _ in itertools.islice(files, at_most))


def tolerated(files: int) -> int:
    """Return how many of `files` files may become unreadable during a run."""
    return max(1, files // _TOLERATED_SHARE)


def _in_class_folders(folder: Path, endings: tuple[str, ...]) -> list[str]:
    names: list[str] = []
    empty = []
    for class_name in class_folders(folder):
        found = sorted(_files_below(folder, class_name, endings), key=_order)
        names += found
        if not found:
            empty.append(class_name)
    if empty:
        raise UserError(f"{folder}: no files in class folder {first_few(empty)}; valid endings: {' '.join(endings)}")
    return names


def _files_below(folder: Path, class_name: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Yield the files of a class folder and its subfolders, as names relative to `folder`."""
    start = len(os.path.join(folder, ""))  # for slicing, because relpath takes seconds for a million files
    for parent, subfolders, files in os.walk(folder / class_name, onerror=_cannot_be_listed, followlinks=True):
        subfolders[:] = [name for name in subfolders if is_data(name) and not _is_loop(parent, name)]
        for name in files:
            if is_data(name) and name.lower().endswith(endings):
                yield os.path.join(parent, name)[start:]


def _cannot_be_listed(error: OSError) -> NoReturn:
    """Raise the error of a subfolder, which `os.walk` would leave out without a word."""
    raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); restore the folder or remove it") from None


def _folder_classes(names: Sequence[str]) -> list[str]:
    return [name.partition("/")[0] for name in names]


def _is_loop(parent: str, subfolder: str) -> bool:
    """Return whether a subfolder is a link to a folder that contains it."""
    path = os.path.join(parent, subfolder)
    return os.path.islink(path) and Path(parent).resolve().is_relative_to(Path(path).resolve())


def _order(name: str) -> tuple[str, str, str]:
    """Return the sort key of a file: class folder, folder, name. This is torchvision's order within class folders."""
    parent, _, file = name.rpartition("/")
    return name.partition("/")[0], parent, file


def _sizes(folder: Path, names: Sequence[str]) -> list[int]:
    sizes = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            sizes.append(os.stat(path).st_size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); restore the file or remove it") from None
    return sizes


def _kaggle_classes(folder: Path, names: Sequence[str], table: Path) -> list[str]:
    wnids = read_kaggle_labels(table)
    unlabelled = [name for name in names if Path(name).stem not in wnids]
    if unlabelled:
        raise UserError(f"{table}: no line for {first_few(unlabelled)} of {folder}; use the csv file of the same data")
    return [wnids[Path(name).stem] for name in names]


def read_kaggle_labels(path: Path) -> dict[str, str]:
    """Return the wnid of every image in Kaggle's CSV file.

    PredictionString is `wnid x y x y`, repeated for every box of that class. Raises `UserError` for another file.
    """
    wnids = {}
    for line, record in read_csv(path, ("ImageId", "PredictionString")):
        wnid = record["PredictionString"].partition(" ")[0]
        if not wnid:
            raise UserError(f"{path} line {line}: no wnid in PredictionString; use Kaggle's file")
        wnids[record["ImageId"]] = wnid
    return wnids


def _video_table(root: Path, table: Path) -> Iterator[tuple[str, str]]:
    """Return the name and the class of each video in a CSV file."""
    text = read_text(table)
    header = text.partition("\n")[0]
    if all(column in header for column in _KINETICS_COLUMNS):
        return _kinetics_videos(root, table)
    return _listed_videos(table, text, _separator(header))


def _kinetics_videos(root: Path, table: Path) -> Iterator[tuple[str, str]]:
    split = table.stem
    folders = {_folder_key(name): name for name in class_folders(root / split)}
    for line, record in read_csv(table, _KINETICS_COLUMNS):
        label = record["label"]
        try:
            start, end = int(record["time_start"]), int(record["time_end"])
        except ValueError:
            raise UserError(f"{table} line {line}: times are whole seconds; use Kinetics' file") from None
        name = f"{record['youtube_id']}_{start:06d}_{end:06d}.mp4"
        yield f"{split}/{folders.get(_folder_key(label), label)}/{name}" if folders else f"{split}/{name}", label


def _folder_key(label: str) -> str:
    """Normalise a class name to compare it with folders, which downloaders also name `air_drumming`."""
    return label.replace("_", " ").strip().lower()


def _listed_videos(table: Path, text: str, separator: str) -> Iterator[tuple[str, str]]:
    for number, values in split_lines(table, text, separator):
        while not values[-1]:
            values.pop()
        if len(values) < 2 or (separator != " " and len(values) > 2):
            columns = count_of(len(values), "column")
            raise UserError(f"{table} line {number}: expected a path and a class, found {columns}")
        yield " ".join(values[:-1]), values[-1]  # a path may contain spaces


def _separator(line: str) -> str:
    """Return the separator between path and class. A path may contain commas and spaces, a class contains no slash."""
    return next((sep for sep in ("\t", ",", ";") if sep in line and "/" not in line.rpartition(sep)[2]), " ")

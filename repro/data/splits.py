"""The training and test images of a run, from any data set."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry
from repro.data.data_sets import DATA_SETS, check_settings
from repro.data.unreadable_files import UnreadableFiles
from repro.errors import UserError, count_of, first_few


class Images(Protocol):
    """A map-style data set of labelled images.

    An item is a pair of an image and its class, an int, or `NOT_COUNTED` (`repro.data.unreadable_files`). The image is
    normalised, float32 (channels, height, width), or a `Uint8Image`, which is normalised as part of a batch.
    """

    @property
    def is_random(self) -> bool:
        """Whether items are augmented with the global random generators of Python, NumPy and torch."""
        ...

    @property
    def labels(self) -> Tensor:
        """The class of every image, int64 (images,)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, int]: ...

    def take(self, indices: Tensor) -> Images:
        """Return only these images, in this order."""
        ...


@dataclass(frozen=True, kw_only=True)
class _DataSet:
    num_classes: int
    fingerprint: str  # depends on the data (`repro.data.fingerprint`) but not on `data.limit_*`
    views: Mapping[str, Images] = field(default_factory=dict)  # several views of each test image, by name: (views, ...)
    skipped: tuple[str, ...] = ()  # name of each file that was left out as unreadable, and the reason
    unreadable: tuple[UnreadableFiles, ...] = ()  # files that became unreadable after they were listed
    class_names: tuple[str, ...] = ()  # in the order of the labels; empty for data sets with fixed classes


@dataclass(frozen=True, kw_only=True)
class Splits(_DataSet):
    """The training and test images of a data set."""

    train: Images
    test: Images
    decoder: str | None = None  # decoder of the training images; None if they are not image files
    in_shards: bool = False  # whether the training images are in shards


@dataclass(frozen=True, kw_only=True)
class EvalSplit(_DataSet):
    """The test images of a data set."""

    images: Images
    total: int  # the number of test images; `images` are fewer if `data.limit_test` is set
    fingerprint_of: str  # what it covers: `test images`, or `training and test images`


def load_splits(data: Data, recipe: Recipe, model: Geometry, resume_fingerprint: str | None = None) -> Splits:
    """Load the splits of `data`, with the recipe's augmentation on the training images.

    `data.limit_train` and `data.limit_test` take a fixed, class-stratified subset. `resume_fingerprint` is the
    fingerprint of the data on which a resumed run was trained; the splits have it too if only a few of their files have
    become unreadable since. Raises `UserError` if data and config disagree in classes, channels, sizes or folders.
    """
    check_settings(data, recipe, model)
    splits: Splits = importlib.import_module(DATA_SETS[data.name].module).load(data, recipe, model, resume_fingerprint)
    if lost := sum(int(each.marks.sum()) for each in splits.unreadable):
        lost_files = count_of(lost, "file")
        print(f"data.root={data.root}: {lost_files} of those trained on cannot be read any more", file=sys.stderr)
    if splits.num_classes != model.num_classes:
        raise UserError(
            f"model.num_classes={model.num_classes}: data={data.name} has "
            f"{count_of(splits.num_classes, 'class', 'classes')}; set model.num_classes={splits.num_classes}"
        )
    images = len(splits.train)
    if data.images_per_epoch not in (None, images):
        raise UserError(
            f"data.images_per_epoch={data.images_per_epoch}: data={data.name} holds "
            f"{count_of(images, 'training image')} and the schedules count them; set data.images_per_epoch={images}"
        )
    return replace(
        splits,
        train=limited(splits.train, data.limit_train, "data.limit_train"),
        test=limited(splits.test, data.limit_test, "data.limit_test"),
        views={name: limited(images, data.limit_test, "data.limit_test") for name, images in splits.views.items()},
    )


def load_eval_split(data: Data, recipe: Recipe, model: Geometry) -> EvalSplit:
    """Load the test images of `data` with the evaluation transform.

    For images in folders, only the validation images are listed, and `train/` may be missing. Raises `UserError` if
    data and model disagree, as `load_splits` does.
    """
    unlimited = data.model_copy(update={"images_per_epoch": None, "limit_train": None, "limit_test": None})
    module = importlib.import_module(DATA_SETS[data.name].module)
    if hasattr(module, "load_validation"):
        check_settings(unlimited, recipe, model)
        split: EvalSplit = module.load_validation(unlimited, recipe, model)
    else:
        splits = load_splits(unlimited, recipe, model)
        split = EvalSplit(
            images=splits.test,
            total=len(splits.test),
            num_classes=splits.num_classes,
            fingerprint=splits.fingerprint,
            fingerprint_of="training and test images",
            views=splits.views,
            skipped=splits.skipped,
            unreadable=splits.unreadable,
            class_names=splits.class_names,
        )
    if split.num_classes != model.num_classes:
        raise UserError(
            f"data={data.name} has {count_of(split.num_classes, 'class', 'classes')}, the model {model.num_classes}: "
            "it was trained on other data; evaluate it on those"
        )
    return replace(
        split,
        images=limited(split.images, data.limit_test, "data.limit_test"),
        views={name: limited(images, data.limit_test, "data.limit_test") for name, images in split.views.items()},
    )


def limited(images: Images, limit: int | None, key: str) -> Images:
    """Return a class-stratified subset of `limit` images, or all images if it is None.

    Raises `UserError`, which names `key`, if there are fewer images.
    """
    if limit is None:
        return images
    if limit > len(images):
        raise UserError(f"{key}={limit}: there are {count_of(len(images), 'image')}; set at most that, or null for all")
    return images.take(stratified_prefix(images.labels, limit))


def stratified_prefix(labels: Tensor, limit: int) -> Tensor:
    """Return the ascending indices of `limit` images with the same class frequencies as `labels`, int64 (images,).

    Images are ordered such that the k-th of the n images of a class is at the relative position (k - 1/2) / n, and the
    first `limit` of them are taken. So a smaller limit takes a subset of a larger one. Nothing is random.
    """
    classes = labels.numpy()
    counts = np.bincount(classes)
    by_class = np.argsort(classes, kind="stable")
    first = np.cumsum(counts) - counts
    rank = np.empty(len(classes))
    rank[by_class] = np.arange(len(classes)) - first[classes[by_class]]
    order = np.lexsort((classes, (rank + 0.5) / counts[classes]))
    return torch.from_numpy(np.sort(order[:limit]))


def skipped_line(skipped: Sequence[str]) -> str:
    """Return a line for the log with the number of files that were left out, and the first few of them."""
    return f"{len(skipped)} left out, all named in provenance.json: {first_few(skipped)}"

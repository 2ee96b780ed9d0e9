"""The training and test images of a run, whatever data set they come from."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from repro.config import Data, Recipe
from repro.errors import UserError
from repro.geometry import Geometry

# Imported when asked for: scikit-learn has no business in a training on ImageNet, nor image decoders in one on digits.
MODULES = {
    "digits": "repro.data.digits",
    "imagefolder": "repro.data.imagefolder",
    "imagenet": "repro.data.imagenet",
    "kinetics400": "repro.data.kinetics400",
    "shapes": "repro.data.shapes",
    "shapes_video": "repro.data.shapes_video",
}


class Images(Protocol):
    """A map-style set of labelled images.

    An item is a normalised float32 image of shape (channels, height, width), or a view of one that becomes that with
    its batch, and its class, an int.
    """

    @property
    def is_random(self) -> bool:
        """Whether an item is drawn anew each time, from the global generators of Python, NumPy and torch."""
        ...

    @property
    def labels(self) -> Tensor:
        """The class of every image, int64 of shape (images,)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, int]: ...

    def take(self, indices: Tensor) -> Images:
        """The same set, of these images only."""
        ...


class Lost:
    """Which of the files of a data set have turned out to be unreadable since they were listed.

    `marks` (uint8, (names,)) are shared by a rank's loader processes.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.marks = torch.zeros(len(names), dtype=torch.uint8).share_memory_()


@dataclass(frozen=True)
class Splits:
    """Training and test images. `fingerprint` (16 hex digits) changes when the data do, not with `data.limit_*`.

    Attributes:
        views: the test images again, by name, as several views of each: (views, ...) in the place of an image.
        decoder: what decodes the training images; None where none are decoded.
        in_shards: whether the training images come from tar files.
        skipped: what was left out because it cannot be read, a line each: its name and why.
        lost: what could be read when it was listed, and for which something else stands since.
        as_begun: the splits of another fingerprint, with which a run has begun, where the difference is but a few files
            that are lost; None where it is more.
    """

    train: Images
    test: Images
    num_classes: int
    fingerprint: str
    views: Mapping[str, Images] = field(default_factory=dict)
    decoder: str | None = None
    in_shards: bool = False
    skipped: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    as_begun: Callable[[str], Splits | None] | None = None


def load_splits(data: Data, recipe: Recipe, model: Geometry, began_with: str | None = None) -> Splits:
    """The splits that `data` names, with the recipe's augmentation on the training images.

    `began_with` is the fingerprint of the data that a run which goes on has begun with.
    `data.limit_train` and `data.limit_test` take a fixed, class-stratified subset. Raises `UserError` where data and
    config disagree: classes, channels, image size, number of images, folders.
    """
    takes_clips = len(model.input_shape) == 4
    if takes_clips != (data.clip is not None):
        wanted = "clips: set data=kinetics400 or data=shapes_video" if takes_clips else "images, not clips of videos"
        raise UserError(f"data={data.name}: the model takes {wanted}")
    load: Callable[[Data, Recipe, Geometry], Splits] = importlib.import_module(MODULES[data.name]).load
    splits = load(data, recipe, model)
    if began_with not in (None, splits.fingerprint) and splits.as_begun is not None:
        splits = splits.as_begun(str(began_with)) or splits
    if splits.num_classes != model.num_classes:
        raise UserError(
            f"model.num_classes={model.num_classes}: data={data.name} has {splits.num_classes} classes; "
            f"set model.num_classes={splits.num_classes}"
        )
    images = len(splits.train)
    if data.images_per_epoch not in (None, images):
        raise UserError(
            f"data.images_per_epoch={data.images_per_epoch}: data={data.name} holds {images} training images and the "
            f"schedules count them; set data.images_per_epoch={images}"
        )
    return replace(
        splits,
        train=limited(splits.train, data.limit_train, "data.limit_train"),
        test=limited(splits.test, data.limit_test, "data.limit_test"),
        views={name: limited(images, data.limit_test, "data.limit_test") for name, images in splits.views.items()},
    )


def stratified_prefix(labels: Tensor, limit: int) -> Tensor:
    """Indices, ascending, of `limit` images whose classes are as frequent as in all of `labels` (int64, (images,)).

    The image that is k-th of n in its class comes at (k - 1/2)/n of the list that is cut, so a smaller limit takes
    a subset of what a larger one takes. Nothing is drawn.
    """
    classes = labels.numpy()
    counts = np.bincount(classes)
    by_class = np.argsort(classes, kind="stable")
    first = np.cumsum(counts) - counts
    rank = np.empty(len(classes))
    rank[by_class] = np.arange(len(classes)) - first[classes[by_class]]
    order = np.lexsort((classes, (rank + 0.5) / counts[classes]))
    return torch.from_numpy(np.sort(order[:limit]))


def check_channels(data: Data, model: Geometry, channels: int) -> None:
    """Raise `UserError` unless the model and the normalisation have `channels` channels."""
    if model.in_chans != channels:
        raise UserError(
            f"model.in_chans={model.in_chans}: data={data.name} has {channels}; set model.in_chans={channels}"
        )
    for key, values in (("data.mean", data.mean), ("data.std", data.std)):
        if len(values) != channels:
            raise UserError(f"{key}: {len(values)} values, the images have {channels} channels; give one per channel")


def first_few(names: list[str], shown: int = 3) -> str:
    """`a, b, c and 4 more`."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def skipped_line(skipped: Sequence[str]) -> str:
    """What a log says of what was left out: how many, and the first few by name."""
    return f"{len(skipped)} left out, all named in provenance.json: {first_few(list(skipped))}"


def limited(images: Images, limit: int | None, key: str) -> Images:
    """As many images as `key` says, of every class its share; all where it says none. Raises `UserError` for more."""
    if limit is None:
        return images
    if limit > len(images):
        raise UserError(f"{key}={limit}: there are {len(images)} images; set at most that, or null for all")
    return images.take(stratified_prefix(images.labels, limit))

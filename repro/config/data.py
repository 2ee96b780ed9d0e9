"""The `data` section: a data set of images or videos."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from repro.config.section import Section


class Clip(Section):
    """How clips are sampled from a video: frames `frame_step` apart, as many as the model takes.

    Frames of a shorter video are spread evenly over it. In training, the shorter side of the frames is drawn from
    `zoom` times the model's input size before a square is cropped.
    """

    frame_step: PositiveInt
    zoom: tuple[float, float]


class Data(Section):
    """A data set."""

    name: Literal["digits", "cifar10", "cifar100", "imagenet", "imagefolder", "kinetics400", "shapes", "shapes_video"]
    root: str | None
    images_per_epoch: PositiveInt | None  # the expected number of training images; None to count them
    limit_train: PositiveInt | None
    limit_test: PositiveInt | None
    workers: NonNegativeInt
    # How training images are decoded and augmented: as timm does, or with the same random draws in less time
    # (`repro.data.fast_transform`).
    decoder: Literal["pil", "fast"] = "pil"
    # Whether to download the published files if they are missing. Only some data sets have a known address.
    download: bool = Field(default=False, exclude_if=lambda value: not value)
    # The approximate number of training images of a data set that differs between users, for cost estimates.
    images_expected: PositiveInt | None = Field(default=None, exclude=True)
    # The number of test images or videos, for confidence intervals; None if it differs between users.
    test_images: PositiveInt | None = Field(default=None, exclude=True)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: Clip | None = None  # None for images

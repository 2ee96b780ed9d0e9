"""The section of a data set, of images or of videos."""

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
    decoder: Literal["pil", "fast"] = "pil"  # of training images: as timm does, or the same in less time
    # Fetch the published files if they are missing, of data sets whose address is known.
    download: bool = Field(default=False, exclude_if=lambda value: not value)
    # Approximate number of training images if it differs from user to user, for the cost of a plan.
    images_expected: PositiveInt | None = Field(default=None, exclude=True)
    # The number of test images or videos, for intervals of accuracies; None if it differs from user to user.
    test_images: PositiveInt | None = Field(default=None, exclude=True)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: Clip | None = None  # None for images

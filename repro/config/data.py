"""The section of a data set, of images or of videos."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from repro.config.section import Section


class Clip(Section):
    """What is taken of a video: frames `frame_step` apart, as many as the model has.

    Where the video is shorter, they are spread evenly over it. In training, squares of the model's size come from
    frames whose shorter side is drawn from `zoom` times it.
    """

    frame_step: PositiveInt
    zoom: tuple[float, float]


class Data(Section):
    """A data set. `images_per_epoch` is what it should hold; null means: count. `clip` is null for images.

    `decoder` makes the training views of image files: `pil` as timm does, `fast` the same views in less time.
    """

    name: Literal["digits", "imagenet", "imagefolder", "kinetics400", "shapes", "shapes_video"]
    root: str | None
    images_per_epoch: PositiveInt | None
    limit_train: PositiveInt | None
    limit_test: PositiveInt | None
    workers: NonNegativeInt
    decoder: Literal["pil", "fast"] = "pil"
    # About how many there are where everybody has another number: for what a plan says of cost, and no part of a run.
    images_expected: PositiveInt | None = Field(default=None, exclude=True)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: Clip | None = None

"""The `backbone` section: the geometry of a backbone at each scale, and its published training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from repro.config.section import Section
from repro.counting.geometry import Geometry


class PublishedTraining(Section):
    """The published training of a backbone. One iteration is one update with `global_batch` images."""

    update_interval_iterations: PositiveInt
    update_end_iterations: PositiveInt
    update_fraction: float = Field(gt=0, le=1)
    decay: Literal["cosine"]
    beta_max: PositiveFloat | None = None  # Spartan's final sharpness; None if none is published
    global_batch: PositiveInt
    epochs: PositiveInt
    images_per_epoch: PositiveInt


class Backbone(Section):
    """A backbone, with its geometry at each scale."""

    name: str
    timm_name: str
    paper: Geometry  # the published size
    mini: Geometry | None = None  # the same width and depth on small images; None if it is not run at that scale
    local: Geometry
    training: PublishedTraining

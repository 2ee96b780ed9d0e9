"""The section of a backbone: its geometry at both sizes, and its published training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from repro.config.section import Section
from repro.counting.geometry import Geometry


class PublishedTraining(Section):
    """The published training of a backbone, with iterations at `global_batch`."""

    update_interval_iterations: PositiveInt
    update_end_iterations: PositiveInt
    update_fraction: float = Field(gt=0, le=1)
    decay: Literal["cosine"]
    beta_max: PositiveFloat | None = None  # Spartan's final sharpness; None if none is published
    global_batch: PositiveInt
    epochs: PositiveInt
    images_per_epoch: PositiveInt


class Backbone(Section):
    """A backbone at paper size, at the same width and depth on small images (None: no such training), and local."""

    name: str
    timm_name: str
    paper: Geometry
    mini: Geometry | None = None
    local: Geometry
    training: PublishedTraining

"""A backbone's section: its two sizes and how it was trained where it was published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from repro.config.section import Section
from repro.geometry import Geometry


class PublishedTraining(Section):
    """The published training of a backbone: iterations are counted at `global_batch`.

    `beta_max` is Spartan's largest sharpness; None where nobody published one for this backbone.
    """

    update_interval_iterations: PositiveInt
    update_end_iterations: PositiveInt
    update_fraction: float = Field(gt=0, le=1)
    decay: Literal["cosine"]
    beta_max: PositiveFloat | None = None
    global_batch: PositiveInt
    epochs: PositiveInt
    images_per_epoch: PositiveInt


class Backbone(Section):
    """A backbone at paper size and at local size."""

    name: str
    timm_name: str
    paper: Geometry
    local: Geometry
    training: PublishedTraining

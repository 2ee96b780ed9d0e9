"""The sections that are about one execution: how large, where, and who is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from repro.config.section import Section


class Scale(Section):
    """How large a row is run."""

    name: Literal["paper", "local", "smoke"]
    stretch_schedule: bool
    cpu_threads: NonNegativeInt


class Tracker(Section):
    """The mirror of the record."""

    name: str
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str | None
    upload_weights: bool
    finish_timeout_s: float = Field(gt=0)


class Run(Section):
    """What cannot change a result: places, devices, cadences, and how the same numbers are computed.

    `compile` lets torch compile the model, whose sums are then rounded in another order, as another device would;
    `checkpoint_activations` trades time for memory and changes no bit.
    """

    root: str
    device: str = Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    checkpoint_every_s: float = Field(gt=0)
    log_every_updates: PositiveInt
    compile: bool = False
    checkpoint_activations: bool = False

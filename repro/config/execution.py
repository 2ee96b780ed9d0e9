"""The sections of one execution: scale, tracker, and options that cannot change a result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from repro.config.section import Section


class Scale(Section):
    """The size at which a row is run."""

    name: Literal["paper", "mini", "local", "smoke"]
    stretch_schedule: bool
    cpu_threads: NonNegativeInt


class Tracker(Section):
    """The mirror of the record."""

    name: str
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str | None
    entity: str | None = None  # a W&B user or team; None for the user's default one
    tags: tuple[str, ...] = ()  # added to those of every run
    notes: str | None = None
    upload_weights: bool
    init_timeout_s: float = Field(default=10, gt=0)  # how long start and end of a run wait for the server
    finish_timeout_s: float = Field(gt=0)


class Run(Section):
    """Folders, devices and intervals, which are not part of the signature."""

    root: str
    device: str = Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    checkpoint_every_s: float = Field(gt=0)
    log_every_updates: PositiveInt
    compile: bool = False  # torch.compile may round sums differently, as another device does
    checkpoint_activations: bool = False  # saves memory at the cost of time, and changes no bit
    # Share of the training after which the weights are kept for runs that start from them (`method.finetune.after`).
    keep_weights_after: float | None = Field(default=None, gt=0, lt=1)

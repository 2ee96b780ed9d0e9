"""The `scale`, `tracker` and `run` sections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from repro.config.section import Section


class Scale(Section):
    """The size at which a row is run."""

    name: Literal["paper", "mini", "local", "smoke"]
    stretch_schedule: bool  # whether mask schedules are scaled to the length of the training
    cpu_threads: NonNegativeInt  # threads of PyTorch in each rank; 0 for PyTorch's default


class Tracker(Section):
    """The tracker that mirrors the record of a run."""

    name: str
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str | None
    entity: str | None = None  # a W&B user or team; None for the user's default
    tags: tuple[str, ...] = ()  # in addition to the tags that every run gets
    notes: str | None = None
    upload_weights: bool
    init_timeout_s: float = Field(default=10, gt=0)  # how long the start of a run waits for the server
    finish_timeout_s: float = Field(gt=0)  # how long the end of a run waits for the server


class Run(Section):
    """Options of an execution that cannot change its result, so they are not part of the signature."""

    root: str
    device: str = Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    checkpoint_every_s: float = Field(gt=0)
    log_every_updates: PositiveInt
    compile: bool = False  # torch.compile changes only rounding, as another device does
    checkpoint_activations: bool = False  # recomputes activations to save memory; the result is bitwise the same
    # The share of the training after which the weights are saved for runs that start from them
    # (`method.finetune.after`).
    keep_weights_after: float | None = Field(default=None, gt=0, lt=1)

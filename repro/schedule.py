"""How long a training is and when its masks are updated, in optimizer updates. Pure arithmetic on a config."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.config import Config


@dataclass(frozen=True)
class Length:
    """A training's length: `updates_per_epoch` optimizer updates of `global_batch` images, `epochs` times."""

    updates_per_epoch: int
    epochs: int
    global_batch: int

    @property
    def updates(self) -> int:
        """Optimizer updates in all."""
        return self.updates_per_epoch * self.epochs


@dataclass(frozen=True)
class UpdateSchedule:
    """When masks change: every `interval` updates, while the update's number is below `end`."""

    interval: int
    end: int
    total: int

    def is_due(self, update: int) -> bool:
        """Whether the masks change after optimizer update `update`, counted from 1."""
        return update % self.interval == 0 and update < self.end

    @property
    def last(self) -> int:
        """The last update that masks change after; 0 where there is none."""
        return self.interval * self.count

    @property
    def count(self) -> int:
        """How many mask updates there are in the whole training."""
        return max(0, (min(self.end, self.total + 1) - 1) // self.interval)


@dataclass(frozen=True)
class GradualSchedule(UpdateSchedule):
    """Masks that change after every update below `end` while the model gets sparser, and then stay.

    `ramp_end`: the update from which on the density is the final one.
    """

    ramp_end: int

    def density(self, update: int, final: float) -> float:
        """The density after `update` updates: from 1 linearly to `final` at `ramp_end`."""
        return 1 - (1 - final) * min(1.0, update / self.ramp_end)

    def ramped(self, update: int, first: float, final: float) -> float:
        """From `first` linearly to `final` at the last update that changes masks."""
        return first + (final - first) * min(1.0, update / self.last)


def first_of_stage(stage: int, stages: int, updates: int) -> int:
    """The first update of a stage, both counted from 1, of so many equal ones in `updates`."""
    return (stage - 1) * updates // stages + 1


def cut_at(share: float, length: int) -> int:
    """How many of a stage's updates come before a share of it: where there is room, something on both sides."""
    return min(max(1, round(share * length)), max(1, length - 1))


def part_starts(updates: int, stages: int, restarts: Sequence[float]) -> tuple[int, ...]:
    """The first update, counted from 1, of each part of a training: each stage begins one, and each of these shares."""
    firsts = [first_of_stage(stage, stages, updates) for stage in range(1, stages + 2)]
    return tuple(
        start
        for first, following in itertools.pairwise(firsts)
        for start in sorted({first, *(first + cut_at(share, following - first) for share in restarts)})
    )


def training_length(config: Config, images_per_epoch: int) -> Length:
    """The length of a run on `images_per_epoch` images; an incomplete last batch of an epoch is dropped."""
    recipe = config.own_recipe
    return Length(max(images_per_epoch // recipe.global_batch, 1), recipe.epochs, recipe.global_batch)


def paper_updates(config: Config) -> float:
    """Optimizer updates of the backbone's published training, at its own global batch."""
    paper = config.backbone.training
    return paper.epochs * paper.images_per_epoch / paper.global_batch


def stretch(config: Config, length: Length) -> float:
    """This training's length over the published one, in images; 1 where the schedule is not stretched."""
    if not config.scale.stretch_schedule:
        return 1.0
    paper = config.backbone.training
    return length.updates * length.global_batch / (paper.epochs * paper.images_per_epoch)


def updates_per_iteration(config: Config, length: Length) -> float:
    """How many optimizer updates of this training stand for one iteration of the published one.

    Another global batch makes it a ratio of batches, for the same images; a stretched schedule shrinks it with the
    training.
    """
    return config.backbone.training.global_batch / length.global_batch * stretch(config, length)


SCHEDULE_OPTIONS = (
    "update_interval_iterations",
    "update_end_iterations",
    "freeze_fraction",
    "density_ramp_fraction",
)


def mask_schedule(config: Config, length: Length) -> UpdateSchedule | None:
    """When masks change, from iterations counted at the published global batch, or from fractions of the training.

    None where they never do.
    """
    options = config.method.weights.options if config.method.weights else {}
    if "freeze_fraction" in options:
        updates = length.updates
        return GradualSchedule(
            interval=1,
            end=max(1, math.floor(options["freeze_fraction"] * updates)) + 1,
            total=updates,
            ramp_end=max(1, math.floor(options["density_ramp_fraction"] * updates)),
        )
    if "update_interval_iterations" not in options:
        return None
    factor = updates_per_iteration(config, length)
    return UpdateSchedule(
        interval=max(1, round(options["update_interval_iterations"] * factor)),
        end=max(1, math.floor(options["update_end_iterations"] * factor + 0.5)),
        total=length.updates,
    )

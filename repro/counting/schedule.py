"""The length of training and the schedule of mask updates, in optimizer updates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from repro.errors import count_of

RELEASED_FLOOR = 0.005  # final value of the cosine in SViTE's released code


@dataclass(frozen=True)
class Length:
    """The length of training: `epochs` epochs of `updates_per_epoch` optimizer updates of `global_batch` images."""

    updates_per_epoch: int
    epochs: int
    global_batch: int

    @property
    def updates(self) -> int:
        """Total number of optimizer updates."""
        return self.updates_per_epoch * self.epochs

    def updates_of(self, share: float) -> int:
        """Number of updates in a fraction of the training, at least one."""
        return max(1, round(share * self.updates))


@dataclass(frozen=True)
class UpdateSchedule:
    """Masks change every `interval` updates while the update number is below `end`; training has `total` updates."""

    interval: int
    end: int
    total: int

    @classmethod
    def scaled(cls, interval: float, end: float, factor: float, total: int) -> UpdateSchedule:
        """Convert a schedule from published iterations, each of which takes `factor` updates here.

        An `end` of 0 stands for fixed masks, others for a schedule that has an update to change masks after.
        """
        return cls(max(1, round(interval * factor)), max(2, math.floor(end * factor + 0.5)) if end else 1, total)

    def is_due(self, update: int) -> bool:
        """Whether the masks change after optimizer update `update`, counted from 1."""
        return update % self.interval == 0 and update < self.end

    def exchanged_fraction(self, decay: str, alpha: float, update: int) -> float:
        """The fraction of active entries that the mask update after optimizer update `update` exchanges.

        `as_paper`: alpha/2 (1 + cos(pi t / T_end)) (SViTE paper, Algorithm 1). `as_released`: a cosine from alpha to
        0.005 over all updates of training, regardless of T_end (the released code's sparse training core).
        """
        if decay == "as_paper":
            return alpha / 2 * (1 + math.cos(math.pi * min(update, self.end) / self.end))
        return RELEASED_FLOOR + (alpha - RELEASED_FLOOR) / 2 * (1 + math.cos(math.pi * update / self.total))

    @property
    def last(self) -> int:
        """The last update after which masks change; 0 if they never do."""
        return self.interval * self.count

    @property
    def count(self) -> int:
        """Total number of mask updates."""
        return max(0, (min(self.end, self.total + 1) - 1) // self.interval)

    def errors(self) -> list[str]:
        """Messages, naming the config keys, for a schedule that does not fit the length of training."""
        if self.end > self.total:
            return [
                f"method.weights.update_end_iterations: masks would change until update {self.end}, but the training "
                f"has {self.total} (raise recipe.epochs or lower update_end_iterations)"
            ]
        if self.count == 0 and self.end > 1:
            return [
                "method.weights.update_interval_iterations: masks would never change: every "
                f"{count_of(self.interval, 'update')}, before update {self.end} of {self.total} "
                "(lower it; for fixed masks, set update_end_iterations=0)"
            ]
        return []


@dataclass(frozen=True)
class GradualSchedule(UpdateSchedule):
    """Masks change after every update below `end` while the density falls to its final value, then freeze.

    `ramp_end`: the first update with the final density.
    """

    ramp_end: int

    @classmethod
    def from_fractions(cls, freeze: float, ramp: float, total: int) -> GradualSchedule:
        """A schedule from fractions of training: masks freeze after `freeze`, the density is final after `ramp`."""
        return cls(1, max(1, math.floor(freeze * total)) + 1, total, max(1, math.floor(ramp * total)))

    def density(self, update: int, final: float) -> float:
        """The density after `update` updates: linear from 1 to `final`, which it reaches at `ramp_end`."""
        return 1 - (1 - final) * min(1.0, update / self.ramp_end)

    def linear_ramp(self, update: int, first: float, final: float) -> float:
        """Linear from `first` to `final`, which it reaches at the last update that changes masks."""
        return first + (final - first) * min(1.0, update / self.last)

    def errors(self) -> list[str]:
        """A message if masks freeze before the density reaches its final value."""
        if self.ramp_end <= self.last:
            return []
        return [
            f"method.weights.density_ramp_fraction: the target is reached after update {self.ramp_end}, but masks "
            f"freeze after {self.last}; lower it, or raise method.weights.freeze_fraction"
        ]


def first_of_stage(stage: int, stages: int, updates: int) -> int:
    """The first update of `stage`, both counted from 1, with `updates` split into `stages` equal stages."""
    return (stage - 1) * updates // stages + 1


def split_stage(share: float, length: int) -> int:
    """How many of a stage's `length` updates precede the fraction `share`, at least one on each side if possible."""
    return min(max(1, round(share * length)), max(1, length - 1))


def cycle_starts(updates: int, stages: int, restarts: Sequence[float]) -> tuple[int, ...]:
    """The first update, counted from 1, of each cycle of the learning rate.

    A cycle starts with each stage, and at each of `restarts`, which are fractions of a stage.
    """
    firsts = [first_of_stage(stage, stages, updates) for stage in range(1, stages + 2)]
    return tuple(
        start
        for first, following in itertools.pairwise(firsts)
        for start in sorted({first, *(first + split_stage(share, following - first) for share in restarts)})
    )

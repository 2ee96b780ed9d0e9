"""GMP: gradual magnitude pruning during training.

Source: Zhu and Gupta, "To prune, or not to prune" (2017), equation 1; a baseline of the SViTE paper (section 4), which
gives no settings; see docs/methods.md for ours.
"""

from __future__ import annotations

import torch
from torch import nn

from repro.counting.schedule import UpdateSchedule
from repro.methods.weights.masked import MaskedWeights
from repro.methods.weights.masks import Masks, prunable_weights
from repro.methods.weights.pruning import prune_to


def ramped_sparsity(update: float, first: float, last: float, initial: float, final: float) -> float:
    """Return the sparsity after `update`: `initial` until `first`, a cubic ramp, and exactly `final` from `last` on.

    Equation 1 of Zhu and Gupta with t0 = first and n * dt = last - first.
    """
    done = min(1.0, max(0.0, (update - first) / (last - first)))
    return final + (initial - final) * (1 - done) ** 3


class GMP(MaskedWeights):
    """Prunes the weights with the smallest magnitudes in steps. A pruned weight never becomes active again.

    Args:
        model: a vision transformer.
        sparsity: fraction of all prunable weights that is zero after the last pruning step, in [0, 1).
        initial_sparsity: the sparsity at the start of the ramp, in [0, sparsity].
        ramp_start: the start of the ramp, as a fraction of the schedule's last update, in [0, 1).
        distribution: `global` (all layers compete), `erk` or `uniform`.
        schedule: when weights are pruned; its last update is the end of the ramp.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        initial_sparsity: float,
        ramp_start: float,
        distribution: str,
        schedule: UpdateSchedule,
        seed: int,
    ) -> None:
        super().__init__(Masks(prunable_weights(model)))
        self.sparsity, self.initial_sparsity = sparsity, initial_sparsity
        self.first = ramp_start * schedule.last
        self.distribution, self.schedule = distribution, schedule

    def after_step(self, update: int) -> None:
        """Apply the masks, and prune further if a pruning step is due."""
        self.masks.apply()
        if self.schedule.is_due(update):
            self._prune(update)
            self.masks.apply()

    def is_at_target(self, update: int) -> bool:
        """Whether the ramp has ended."""
        return update >= self.schedule.last

    @torch.no_grad()
    def _prune(self, update: int) -> None:
        sparsity = ramped_sparsity(update, self.first, self.schedule.last, self.initial_sparsity, self.sparsity)
        scores = {name: weight.abs() for name, weight in self.masks.weights.items()}
        masks = prune_to(self.masks, scores, self.distribution, 1 - sparsity)
        self.note_update(update, sum(self.masks.replace(name, mask) for name, mask in masks.items()))

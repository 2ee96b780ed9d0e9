"""S2ViTE: structured sparse training over attention heads and MLP neurons.

Source: SViTE paper, section 3.2. The released growth takes back exactly what an update has just pruned, because a unit
whose weights are all zero gets no gradient; it is here as `growth=as_released`. The default, `growth=fresh`, draws
incoming weights anew for every inactive unit in an update that changes masks, behind outgoing weights of zero: the
network computes what it did before, but the outgoing weights now have a gradient, and any unit can be found by it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.measure.cost import units_kept
from repro.schedule import UpdateSchedule
from repro.seeding import generator
from repro.sparsity.decay import update_fraction
from repro.sparsity.ranks import mean_over_ranks
from repro.sparsity.structured import StructuredUnits
from repro.sparsity.svite import exchange
from repro.sparsity.units import OutputProbe, UnitGroup


def prune_and_grow_units(prune_score: Tensor, grow_score: Tensor, active: Tensor, fraction: float) -> Tensor:
    """One update of a set of units (heads or neurons of a block), by the released code's rule.

    The ceil(fraction * active) active units of least `prune_score` are pruned; then as many of all units inactive by
    then, those just pruned among them, are grown where `grow_score` is largest. Ties go to the first.

    Args:
        prune_score, grow_score: (units,), finite.
        active: bool (units,). Not changed.
        fraction: share of the active units to exchange, in [0, 1].

    Returns:
        The new active units, bool (units,), as many as before. A full set is left alone.

    Raises:
        ValueError: for a fraction outside [0, 1] or a score that is not a number.
    """
    return exchange(active, prune_score, grow_score, fraction)


class S2ViTE(StructuredUnits):
    """Keeps a share of the heads and neurons of every block active and exchanges some at every mask update.

    Args:
        model: a vision transformer.
        sparsity: the row's nominal sparsity; what is kept is said by the two densities.
        heads_density, neurons_density: share of each block's heads and neurons that is active, in (0, 1].
        growth: `fresh` or `as_released`.
        decay: `as_paper` or `as_released`, see `repro.sparsity.decay`.
        update_fraction: alpha, the share of active units exchanged at first.
        schedule: when masks change.

    Raises:
        UserError: for a block with fewer than one head or neuron left.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        heads_density: float,
        neurons_density: float,
        growth: str,
        decay: str,
        update_fraction: float,
        schedule: UpdateSchedule,
        seed: int,
    ) -> None:
        densities = {"heads": heads_density, "neurons": neurons_density}
        super().__init__(model, densities)
        self.growth, self.decay = growth, decay
        self.alpha, self.schedule, self.seed = update_fraction, schedule, seed
        self._probes: dict[str, OutputProbe] = {}
        for group in self.groups:
            total = len(group.active)
            order = torch.randperm(total, generator=generator("units", seed, group.name))
            group.active[order[units_kept(total, densities[group.kind]) :]] = False
            group.ever_active = group.active.clone()
            group.zero_inactive()

    def before_update(self, update: int) -> None:
        """In an update that will change units: watch what heads put out, and give inactive units something to say."""
        if not self.schedule.is_due(update):
            return
        for group in self.groups:
            if self.growth == "fresh":
                self._draw(group, update)
            if group.kind == "heads":
                self._probes[group.name] = OutputProbe(group)

    def _draw(self, group: UnitGroup, update: int) -> None:
        """Fresh incoming weights for inactive units, spread as those of the active ones, behind a closed way out."""
        weight = group.incoming[0]
        inactive = ~group.active
        kept = weight.read(inactive)
        draw = torch.randn(kept.shape, generator=generator("fresh units", self.seed, group.name, update))
        # A seeded draw on the CPU and one number from equal weights: the same on every rank and device.
        weight.write(inactive, draw * float(weight.read(group.active).float().std().cpu()))
        group.outgoing.write(inactive, None)

    def after_step(self, update: int) -> None:
        """Keep inactive units at zero; exchange units where it is due."""
        if self.schedule.is_due(update):
            self._exchange(update)
        super().after_step(update)

    @torch.no_grad()
    def _exchange(self, update: int) -> None:
        fraction = update_fraction(self.decay, self.alpha, update, self.schedule)
        exchanged = 0
        for group in self.groups:
            prune_score, grow_score = self._scores(group)
            active = prune_and_grow_units(prune_score, grow_score, group.active, fraction)
            grown = active & ~group.active
            exchanged += int(grown.sum())
            if self.growth == "fresh":
                # This update's step has touched them: what is grown starts at zero, as everywhere.
                group.outgoing.write(grown, None)
            group.active = active
            group.ever_active |= active
        self._probes = {}
        self.note_update(update, exchanged)

    def _scores(self, group: UnitGroup) -> tuple[Tensor, Tensor]:
        """Heads are pruned by Taylor score, neurons by L1 of what they own; both grow by L1 of a gradient.

        That is the gradient of what the released code takes (a head's output, all that a neuron owns), or with fresh
        units that of the outgoing weights. The same on every rank: gradients of weights are, and means over ranks are.
        """
        outgoing = group.outgoing.l1(_gradient(group.outgoing.parameter))
        if group.kind == "heads":
            probe = self._probes[group.name]
            probe.close()
            prune_score, released = mean_over_ranks(probe.taylor), mean_over_ranks(probe.gradient_l1)
        else:
            weights = [part for part in group.owned if part.parameter.dim() > 1]
            prune_score = sum_over(part.l1(part.parameter.detach()) for part in weights)
            released = sum_over(part.l1(_gradient(part.parameter)) for part in weights)
        return prune_score.cpu(), (outgoing if self.growth == "fresh" else released).cpu()


def sum_over(scores: Any) -> Tensor:
    """Sum of score tensors of one shape."""
    return torch.stack(list(scores)).sum(0)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "a unit's weight has no gradient"
    return parameter.grad

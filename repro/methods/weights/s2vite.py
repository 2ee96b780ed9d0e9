"""S2ViTE: structured sparse training over attention heads and MLP neurons.

Source: SViTE paper, section 3.2. With `growth=as_released`, an update regrows exactly the units that it has pruned,
because a unit whose weights are all zero has no gradient. The default, `growth=fresh`, draws new incoming weights for
every inactive unit in each update that changes masks, and sets its outgoing weights to zero. The network still computes
the same function, but the outgoing weights have a gradient, so that any unit can grow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.counting.layers import units_kept
from repro.counting.schedule import UpdateSchedule
from repro.distributed import all_reduce_mean
from repro.methods.weights.structured import StructuredUnits
from repro.methods.weights.svite import exchange
from repro.methods.weights.units import OutputProbe, UnitGroup
from repro.seeding import generator


class S2ViTE(StructuredUnits):
    """Keeps a share of each block's heads and neurons active, and exchanges some of them in each mask update.

    Args:
        model: a vision transformer.
        sparsity: the nominal sparsity of the row, not used: the densities determine what remains.
        heads_density, neurons_density: share of each block's heads and neurons that is active, in (0, 1].
        growth: `fresh` or `as_released`.
        decay: `as_paper` or `as_released`, see `UpdateSchedule.exchanged_fraction`.
        update_fraction: alpha, the share of active units that the first update exchanges.
        schedule: when masks change.
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
        super().__init__(model)
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
        """Before an update that changes units: record the outputs of heads, and draw new weights for inactive units."""
        if not self.schedule.is_due(update):
            return
        for group in self.groups:
            if self.growth == "fresh":
                self._draw_inactive(group, update)
            if group.kind == "heads":
                self._probes[group.name] = OutputProbe(group)

    def _draw_inactive(self, group: UnitGroup, update: int) -> None:
        """Draw incoming weights of inactive units with the standard deviation of active ones; zero outgoing weights."""
        weight = group.incoming[0]
        inactive = ~group.active
        shape = weight.read(inactive).shape
        draw = torch.randn(shape, generator=generator("fresh units", self.seed, group.name, update))
        # The same on every rank and device: a seeded draw on the CPU, scaled by a statistic of identical weights.
        weight.write(inactive, draw * float(weight.read(group.active).float().std().cpu()))
        group.outgoing.write(inactive, None)

    def after_step(self, update: int) -> None:
        """Exchange units if an exchange is due, and keep inactive units at zero."""
        if self.schedule.is_due(update):
            self._exchange(update)
        super().after_step(update)

    @torch.no_grad()
    def _exchange(self, update: int) -> None:
        fraction = self.schedule.exchanged_fraction(self.decay, self.alpha, update)
        exchanged = 0
        for group in self.groups:
            prune_score, grow_score = self.unit_scores(group)
            active = exchange(group.active, prune_score, grow_score, fraction)
            grown = active & ~group.active
            exchanged += int(grown.sum())
            if self.growth == "fresh":
                # The optimizer has just changed these weights, but grown weights start at zero.
                group.outgoing.write(grown, None)
            group.active = active
            group.ever_active |= active
        self._probes = {}
        self.note_update(update, exchanged)

    def unit_scores(self, group: UnitGroup) -> tuple[Tensor, Tensor]:
        """Scores of a group's units for pruning (lowest first) and for growth (highest first), equal on all ranks.

        Heads are pruned by Taylor score, neurons by the L1 norm of their weights. Both grow by the L1 norm of a
        gradient: as in the released code, that of a head's output or of all weights of a neuron; with fresh units, that
        of the outgoing weights.
        """
        outgoing = group.outgoing.l1(_gradient(group.outgoing.parameter))
        if group.kind == "heads":
            probe = self._probes[group.name]
            probe.close()
            prune_score, released = all_reduce_mean(probe.taylor), all_reduce_mean(probe.gradient_l1)
        else:
            weights = [part for part in group.owned if part.parameter.dim() > 1]
            prune_score = torch.stack([part.l1(part.parameter.detach()) for part in weights]).sum(0)
            released = torch.stack([part.l1(_gradient(part.parameter)) for part in weights]).sum(0)
        return prune_score.cpu(), (outgoing if self.growth == "fresh" else released).cpu()


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "a unit's weight has no gradient"
    return parameter.grad

"""S2ViTE: structured sparse training over attention heads and MLP neurons.

Source: SViTE paper, section 3.2. The released growth takes back exactly what an update has just pruned, because a unit
whose weights are all zero gets no gradient; it is here as `growth=as_released`. The default, `growth=gate`, keeps the
weights of inactive units aside and, in an update that changes masks, puts them behind a closed gate: the gradient of
the gate is what switching the unit on would gain, to first order, so that any unit can be found.
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
        growth: `gate` or `as_released`.
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
        self.alpha, self.schedule = update_fraction, schedule
        self._probes: list[OutputProbe] = []
        # What inactive units own, kept aside for the gate; order of `owned`, over the units inactive at present.
        self._aside: dict[str, list[Tensor]] = {}
        for group in self.groups:
            total = len(group.active)
            order = torch.randperm(total, generator=generator("units", seed, group.name))
            group.active[order[units_kept(total, densities[group.kind]) :]] = False
            group.ever_active = group.active.clone()
            if self.growth == "gate":
                self._aside[group.name] = [part.read(~group.active) for part in group.owned]
            group.zero_inactive()

    def before_update(self, update: int) -> None:
        """Watch the units' outputs in an update that will change them."""
        if not self.schedule.is_due(update):
            return
        gated = self.growth == "gate"
        for group in self.groups:
            if gated:
                for part, values in zip(group.owned, self._aside[group.name], strict=True):
                    part.write(~group.active, values)
            self._probes.append(OutputProbe(group, gated))

    def after_step(self, update: int) -> None:
        """Keep inactive units at zero; exchange units where it is due."""
        if self._probes:
            self._exchange(update)
        super().after_step(update)

    @torch.no_grad()
    def _exchange(self, update: int) -> None:
        fraction = update_fraction(self.decay, self.alpha, update, self.schedule)
        exchanged = 0
        for probe in self._probes:
            probe.close()
            group = probe.group
            prune_score, grow_score = self._scores(probe)
            active = prune_and_grow_units(prune_score, grow_score, group.active, fraction)
            exchanged += int((active & ~group.active).sum())
            self._switch(group, active)
        self._probes = []
        self.note_update(update, exchanged)

    def _scores(self, probe: OutputProbe) -> tuple[Tensor, Tensor]:
        """Heads are pruned by Taylor score, neurons by L1 of what they own; the same on every rank."""
        group = probe.group
        if group.kind == "heads":
            prune_score = mean_over_ranks(probe.taylor)
            released = mean_over_ranks(probe.gradient_l1)
        else:
            weights = [part for part in group.owned if part.parameter.dim() > 1]
            prune_score = sum_over(part.l1(part.parameter.detach()) for part in weights)
            released = sum_over(part.l1(_gradient(part.parameter)) for part in weights)
        grow_score = mean_over_ranks(probe.gain) if self.growth == "gate" else released
        return prune_score.cpu(), grow_score.cpu()

    def _switch(self, group: UnitGroup, active: Tensor) -> None:
        """Make `active` the group's active units. At a gate, weights come from aside and go there."""
        if self.growth == "gate":
            # The optimizer has moved the inactive units a little in this update: what was put aside is the truth.
            for part, values in zip(group.owned, self._aside[group.name], strict=True):
                part.write(~group.active, values)
            self._aside[group.name] = [part.read(~active) for part in group.owned]
        group.active = active
        group.ever_active |= active

    def state_dict(self) -> dict[str, Any]:
        """Units, counters, and the weights kept aside."""
        aside = {name: [value.cpu().clone() for value in values] for name, values in self._aside.items()}
        return {**super().state_dict(), "aside": aside}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        self._aside = {name: list(values) for name, values in state["aside"].items()}


def sum_over(scores: Any) -> Tensor:
    """Sum of score tensors of one shape."""
    return torch.stack(list(scores)).sum(0)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "a unit's weight has no gradient"
    return parameter.grad

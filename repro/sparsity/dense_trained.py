"""Weights that are trained dense and used sparse: what Spartan and the methods it is compared with share.

The model holds the weights that are used, sparse after every update: what is evaluated, averaged, saved and exported.
The dense ones, which the optimizer moves, are kept aside; they change places after the backward pass and after the
optimizer, by exchanging two pointers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.measure.layers import Layer, Whole
from repro.schedule import GradualSchedule
from repro.sparsity.budgets import budget
from repro.sparsity.groups import Group, groups_of
from repro.sparsity.hard_topk import Cut, Segment, cut, hard_mask
from repro.sparsity.masked import MaskedWeights
from repro.sparsity.masks import Masks, prunable_weights
from repro.sparsity.ranks import as_on_the_first

_HISTORY_ENTRIES = 200  # lines of mask history that a run writes at most: masks change with every update


@dataclass(frozen=True)
class Scope:
    """Groups that compete for one budget: all of them, or those of one layer."""

    groups: tuple[Group, ...]
    budget: float


class DenseTrained(MaskedWeights):
    """A method part whose support is the groups of largest mean magnitude, chosen anew after every update.

    Args:
        model: any model of linear layers and convolutions.
        sparsity: share of the whole model's cost that is gone from the ramp's end on, in [0, 1).
        distribution: `global`, `uniform` or `erk`: what competes with what.
        block: `entry`, `neuron` or a square (`16x16`): what is masked as one.
        cost: `params` or `macs`: what the target counts.
        whole: the model as it is counted.
        schedule: density by update, and when the mask freezes.

    Raises:
        UserError: for a target that what stays dense does not leave room for, or a block shape that the model has not.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        distribution: str,
        block: str,
        cost: str,
        whole: Whole,
        schedule: GradualSchedule,
        seed: int,
    ) -> None:
        self.sparsity, self.distribution, self.block, self.cost = sparsity, distribution, block, cost
        self.whole, self.schedule = whole, schedule
        self.parameters = prunable_weights(model)
        expected = {layer.name: layer.shape for layer in whole.layers}
        found = {name: tuple(weight.shape) for name, weight in self.parameters.items()}
        if expected != found:
            differing = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
            raise UserError(f"the model is not the one that is counted: {', '.join(sorted(differing)[:3])}")
        self._budget(schedule.last)  # one that leaves no room is refused now, not within the ramp
        units = self._budget(0).unit
        masked = sum(layer.size for layer in self._layers(units))
        # Costs are counted in those of a mean entry, so that sharpness means the same whatever they count.
        self._mean_unit = sum(layer.size * units[layer.name] for layer in self._layers(units)) / masked
        relative = {name: units[name] / self._mean_unit for name in units}
        self.groups = groups_of(model, {n: w.detach() for n, w in self.parameters.items()}, block, relative)
        self.group_size = masked / sum(group.count for group in self.groups)
        self.dense = {name: self.parameters[name].detach().clone() for name in units}
        self.multipliers: dict[str, Tensor] | None = None  # of the frozen mask: floats, or bools where it is hard
        super().__init__(Masks(self.parameters, may_be_empty=True))
        self.choose(0)

    @abstractmethod
    def soften(self, scope: int, segments: Sequence[Segment], where: Cut, budget: float, update: int) -> None:
        """Prepare the multipliers of a scope, where there is more to know than the support."""

    @abstractmethod
    def multiplier(self, group: Group, support: Tensor) -> Tensor:
        """What the weights of each group are multiplied by: flat, zero outside the flat float `support`."""

    @abstractmethod
    def pull_back(self, gradients: Mapping[str, Tensor]) -> None:
        """Turn gradients by the weights that were used into those by the dense ones, in place."""

    def choose(self, update: int) -> None:
        """Take the support, and what goes with it, for the forward pass that follows `update` updates."""
        entered, carried = 0, 0.0
        scopes = self.scopes(update)
        for index, scope in enumerate(scopes):
            segments = [group.segment(self.dense) for group in scope.groups]
            # What is left of a layer's budget, less than a block's cost, is the next one's: the total stays exact.
            room = scope.budget + carried
            where = Cut.from_numbers(as_on_the_first(cut(segments, room).numbers, self._device))
            self.soften(index, segments, where, scope.budget, update)
            used, carried = 0, room
            for group, segment in zip(scope.groups, segments, strict=True):
                support, used = hard_mask(segment, where, used)
                if index + 1 < len(scopes):
                    carried -= segment.cost_of(support)
                factors = self.multiplier(group, support.to(segment.values.dtype))
                for name in group.layers:
                    entered += self.masks.replace(name, group.spread(support, name))
                    self._use(name, group.spread(factors, name))
        if update and (update % self._history_every == 0 or update == self.schedule.last):
            self.note_update(update, entered)

    def scopes(self, update: int) -> list[Scope]:
        """What competes for what after `update` updates; budgets in costs of a mean entry."""
        now = self._budget(update)
        if now.is_global:
            return [Scope(tuple(self.groups), now.of(self._layers(now.unit)) / self._mean_unit)]
        return [
            Scope((group,), now.of(self._layers(dict.fromkeys(group.layers))) / self._mean_unit)
            for group in self.groups
        ]

    def after_backward(self, update: int) -> None:
        """Dense weights and their gradients to the optimizer."""
        gradients = {name: self._gradient(name) for name in self.dense}
        if self.multipliers is None:
            self.pull_back(gradients)
        else:
            for name, gradient in gradients.items():
                gradient.mul_(self.multipliers[name])
        self._change_places()

    def after_step(self, update: int) -> None:
        """Back to the weights that are used, from the dense ones as they are now."""
        self._change_places()
        if self.schedule.is_due(update):
            self.choose(update)
            if update == self.schedule.last:
                self.freeze()
        else:
            for name in self.dense:
                assert self.multipliers is not None
                self._use(name, self.multipliers[name])

    def freeze(self) -> None:
        """Keep the multipliers of now to the end."""
        self.multipliers = {}
        for group in self.groups:
            for name in group.layers:
                self.multipliers[name] = self.frozen_multiplier(group, name)
                self._use(name, self.multipliers[name])

    def frozen_multiplier(self, group: Group, name: str) -> Tensor:
        """What the weights of a layer are multiplied by from now on; the support itself unless a method says more."""
        return self.masks[name]  # a byte an entry, not four

    def is_at_target(self, update: int) -> bool:
        """From the end of the density's ramp on."""
        return update >= self.schedule.ramp_end

    def state_dict(self) -> dict[str, Any]:
        """Masks and counters, dense weights, and the multipliers once they are frozen."""
        frozen = None if self.multipliers is None else {name: value.clone() for name, value in self.multipliers.items()}
        dense = {name: value.clone() for name, value in self.dense.items()}
        return {**super().state_dict(), "dense": dense, "multipliers": frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; the weights that are used come back with the model's."""
        super().load_state_dict(state)
        for name, value in state["dense"].items():
            self.dense[name].copy_(value)
        frozen = state["multipliers"]
        self.multipliers = None if frozen is None else {name: value.to(self._device) for name, value in frozen.items()}

    @property
    def _device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def _history_every(self) -> int:
        return -(-self.schedule.last // _HISTORY_ENTRIES)

    def _budget(self, update: int) -> Any:
        density = self.schedule.density(update, 1 - self.sparsity)
        return budget(self.whole, density, distribution=self.distribution, cost=self.cost, block=self.block)

    def _layers(self, names: Mapping[str, Any]) -> list[Layer]:
        return [layer for layer in self.whole.layers if layer.name in names]

    def _gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        return torch.zeros_like(self.dense[name]) if gradient is None else gradient

    def _use(self, name: str, factors: Tensor) -> None:
        torch.mul(self.dense[name], factors, out=self.parameters[name].data)

    def _change_places(self) -> None:
        for name, dense in self.dense.items():
            self.dense[name], self.parameters[name].data = self.parameters[name].data, dense

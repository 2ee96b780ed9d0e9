"""Base class of methods that train dense weights and use sparse ones (Spartan and its baselines).

The model holds the sparse weights, which are evaluated, averaged, saved and exported. The optimizer updates dense
weights that are stored here. After the backward pass, and again after the optimizer step, the two are swapped by
pointer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro.counting.budgets import Budget, budget
from repro.counting.layers import DenseModel, Layer
from repro.counting.schedule import GradualSchedule
from repro.distributed import broadcast_from_rank0
from repro.methods.weights.groups import Group, build_groups, entries_of
from repro.methods.weights.masked import MaskedWeights
from repro.methods.weights.masks import Masks, prunable_weights
from repro.methods.weights.topk import Cut, Entries, find_cut, hard_mask

_HISTORY_ENTRIES = 200  # maximum number of mask history entries of a run, because masks change in every update


@dataclass(frozen=True)
class Scope:
    """Groups that compete for one budget: those of all layers, or of one."""

    groups: tuple[Group, ...]
    budget: float


class DenseToSparse(MaskedWeights):
    """A method part whose support is the groups with the largest mean magnitude, selected after every update.

    Args:
        model: any model of linear layers and convolutions.
        sparsity: share of the whole model's cost that is removed once the ramp has ended, in [0, 1).
        distribution: `global` (all layers compete), `uniform` or `erk`.
        block: shape of the groups: `entry`, `neuron` or a square (`16x16`).
        cost: `params` or `macs`: the quantity that `sparsity` refers to.
        dense_model: the geometry's layers and totals, from which budgets are computed.
        schedule: density by update, and when the mask freezes.

    Raises `UserError` if the parts that stay dense exceed the target.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        distribution: str,
        block: str,
        cost: str,
        dense_model: DenseModel,
        schedule: GradualSchedule,
        seed: int,
    ) -> None:
        self.sparsity, self.distribution, self.block, self.cost = sparsity, distribution, block, cost
        self.dense_model, self.schedule = dense_model, schedule
        self.parameters = prunable_weights(model)
        assert {name: weight.shape for name, weight in self.parameters.items()} == {
            layer.name: layer.shape for layer in dense_model.layers
        }
        self._budget(schedule.last)  # reject an impossible target now, not during the ramp
        units = self._budget(0).unit_costs
        masked = sum(layer.size for layer in self._layers(units))
        # Costs are relative to the mean entry, so that sharpness has the same meaning for params and MACs.
        self._mean_unit = sum(layer.size * units[layer.name] for layer in self._layers(units)) / masked
        relative = {name: units[name] / self._mean_unit for name in units}
        self.groups = build_groups(model, {n: w.detach() for n, w in self.parameters.items()}, block, relative)
        self.group_size = masked / sum(group.count for group in self.groups)
        self.dense = {name: self.parameters[name].detach().clone() for name in units}
        self.multipliers: dict[str, Tensor] | None = None  # of the frozen mask: floats, or bools if it is hard
        super().__init__(Masks(self.parameters, allow_empty=True))
        self.select_support(0)

    @abstractmethod
    def factors(self, scope: int, entries: Entries, budget: float, cut: Cut, support: Tensor, update: int) -> Tensor:
        """Return the factor of each group of a scope, as a flat tensor; zero or false outside the flat `support`."""

    @abstractmethod
    def to_dense_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Convert gradients w.r.t. the sparse weights into gradients w.r.t. the dense weights, in place."""

    def select_support(self, update: int) -> None:
        """Select the support for the forward pass after `update` updates, and set masks and sparse weights.

        The multipliers of the last selection are kept until the end of training.
        """
        exchanged, carried = 0, 0.0
        is_last = update == self.schedule.last
        frozen: dict[str, Tensor] = {}
        for index, scope in enumerate(self.scopes(update)):
            entries = entries_of(scope.groups, self.dense)
            # The unused budget of a layer, less than the cost of a block, is passed on to the next one.
            available = scope.budget + carried
            cut = Cut.from_numbers(broadcast_from_rank0(find_cut(entries, available).numbers, self._device))
            support = hard_mask(entries, cut)
            carried = available - entries.cost_of(support)
            factors = self.factors(index, entries, scope.budget, cut, support, update)
            counts = [group.count for group in scope.groups]
            for group, chosen, values in zip(scope.groups, support.split(counts), factors.split(counts), strict=True):
                for name in group.layers:
                    exchanged += self.masks.replace(name, group.expand(chosen, name))
                    self._set_sparse(name, group.expand(values, name))
                    if is_last:
                        frozen[name] = group.expand(values, name).clone()
        if is_last:
            self.multipliers = frozen
        if update and (update % self.history_interval == 0 or is_last):
            self.note_update(update, exchanged)

    def scopes(self, update: int) -> list[Scope]:
        """Return the scopes after `update` updates, with budgets in units of the mean entry's cost."""
        total = self._budget(update)
        if total.is_global:
            return [Scope(tuple(self.groups), total.cost_of(self._layers(total.unit_costs)) / self._mean_unit)]
        return [
            Scope((group,), total.cost_of(self._layers(dict.fromkeys(group.layers))) / self._mean_unit)
            for group in self.groups
        ]

    def after_backward(self, update: int) -> None:
        """Swap in the dense weights and their gradients for the optimizer."""
        gradients = {name: self._gradient(name) for name in self.dense}
        if self.multipliers is None:
            self.to_dense_gradients(gradients)
        else:
            for name, gradient in gradients.items():
                gradient.mul_(self.multipliers[name])
        self._swap()

    def after_step(self, update: int) -> None:
        """Compute the sparse weights from the updated dense ones, with a new support unless the mask is frozen."""
        self._swap()
        if self.schedule.is_due(update):
            self.select_support(update)
        else:
            for name in self.dense:
                assert self.multipliers is not None
                self._set_sparse(name, self.multipliers[name])

    def is_at_target(self, update: int) -> bool:
        """Whether the density ramp has ended."""
        return update >= self.schedule.ramp_end

    def state_dict(self) -> dict[str, Any]:
        """Return masks and counters, dense weights, and frozen multipliers."""
        frozen = None if self.multipliers is None else {name: value.clone() for name, value in self.multipliers.items()}
        dense = {name: value.clone() for name, value in self.dense.items()}
        return {**super().state_dict(), "dense": dense, "multipliers": frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. The sparse weights are part of the model's state."""
        super().load_state_dict(state)
        for name, value in state["dense"].items():
            self.dense[name].copy_(value)
        frozen = state["multipliers"]
        self.multipliers = None if frozen is None else {name: value.to(self._device) for name, value in frozen.items()}

    @property
    def _device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def history_interval(self) -> int:
        """Number of updates between two entries of the mask history."""
        return -(-self.schedule.last // _HISTORY_ENTRIES)

    def _budget(self, update: int) -> Budget:
        density = self.schedule.density(update, 1 - self.sparsity)
        return budget(self.dense_model, density, distribution=self.distribution, cost=self.cost, block=self.block)

    def _layers(self, names: Mapping[str, Any]) -> list[Layer]:
        return [layer for layer in self.dense_model.layers if layer.name in names]

    def _gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        return torch.zeros_like(self.dense[name]) if gradient is None else gradient

    def _set_sparse(self, name: str, factors: Tensor) -> None:
        torch.mul(self.dense[name], factors, out=self.parameters[name].data)

    def _swap(self) -> None:
        for name, dense in self.dense.items():
            self.dense[name], self.parameters[name].data = self.parameters[name].data, dense

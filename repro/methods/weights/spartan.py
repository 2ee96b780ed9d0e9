"""Spartan: dense weights trained through a soft top-k mask of growing sharpness, and used through a hard top-k.

Source: Tai et al., "Spartan: Differentiable Sparsity via Regularized Transportation" (NeurIPS 2022), sections 3 and 4.
Written from the formulas; docs/methods.md lists our choices where the paper leaves them open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from repro.distributed import broadcast_from_rank0
from repro.methods.weights.dense_parameters import DenseToSparse
from repro.methods.weights.groups import Group
from repro.methods.weights.topk import Cut, Entries, SoftSolution, soft_mask, solve, values_gradient

FIRST_BETA = 1.0


class Spartan(DenseToSparse):
    """Uses theta * m on the support, where m is the soft top-k of |theta|. The hard top-k passes gradients unchanged.

    A weight outside the support therefore keeps learning in proportion to m (dual averaging), and also receives the
    gradient through m.

    Args:
        beta_max: sharpness when the mask freezes, for single entries; for blocks, it is multiplied by the square root
            of their size.
        frozen_mask: multiplier of the weights after the mask freezes: `soft`, m on the support as in the released code,
            or `hard`, 1.
    """

    def __init__(self, model: nn.Module, *, beta_max: float, frozen_mask: str, **shared: Any) -> None:
        self.beta_max, self.frozen_mask = beta_max, frozen_mask
        self.soft: dict[int, SoftSolution] = {}
        super().__init__(model, **shared)

    def factors(self, scope: int, entries: Entries, budget: float, cut: Cut, support: Tensor, update: int) -> Tensor:
        """Solve the soft top-k, starting from the previous step's solution, and return its mask on the support."""
        beta = self.schedule.linear_ramp(update, FIRST_BETA, self.beta_max * math.sqrt(self.group_size))
        solution = solve(entries, budget, beta, self.soft.get(scope), cut)
        self.soft[scope] = SoftSolution.from_numbers(broadcast_from_rank0(solution.numbers, self._device))
        if update == self.schedule.last and self.frozen_mask == "hard":
            return support
        return soft_mask(entries.ratios, self.soft[scope]).masked_fill_(~support, 0)

    def to_dense_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Apply dL/dtheta = g m + sign(theta) dL/dv, where g is dL/d(theta * m) and v the sum of |theta|."""
        means = self.scope_means(gradients)
        for group in self.groups:
            mask = self._mask(group)
            mask_gradient = self._mask_gradient(group, gradients)
            soft = self.soft[self._scope(group)]
            value_gradient = values_gradient(mask_gradient, mask, group.costs, soft.beta, means[self._scope(group)])
            for name in group.layers:
                gradient = gradients[name]
                gradient.mul_(group.expand(mask, name))
                gradient.addcmul_(self.dense[name].sign(), group.expand(value_gradient, name))

    @property
    def beta(self) -> float:
        """Current sharpness of the mask."""
        return self.soft[0].beta

    def metrics(self) -> dict[str, float]:
        """Return the metrics of masks, and the sharpness."""
        return {**super().metrics(), "beta": self.beta}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base class, and the solutions, which determine the soft masks."""
        return {**super().state_dict(), "soft": {scope: soft.state_dict() for scope, soft in self.soft.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.soft = {scope: SoftSolution.from_state(soft) for scope, soft in state["soft"].items()}

    def _scope(self, group: Group) -> int:
        return 0 if self.distribution == "global" else self.groups.index(group)

    def _mask(self, group: Group) -> Tensor:
        """Compute the soft mask of a layer's groups, flat."""
        return soft_mask(group.ratios(self.dense), self.soft[self._scope(group)])

    def _mask_gradient(self, group: Group, gradients: Mapping[str, Tensor]) -> Tensor:
        """Compute dL/dm: the sum of gradient * weight over each group."""
        return group.total({name: gradients[name] * self.dense[name] for name in group.layers})

    def scope_means(self, gradients: Mapping[str, Tensor]) -> dict[int, float]:
        """Compute sum g s / sum c s of each scope, s = m (1 - m), on rank 0, so that all ranks get the same weights."""
        sums: dict[int, Tensor] = {}
        for group in self.groups:
            mask = self._mask(group)
            spread = mask * (1 - mask)
            costs = spread * group.costs
            pair = torch.stack(
                [
                    (self._mask_gradient(group, gradients) * spread).sum(dtype=torch.float64),
                    costs.sum(dtype=torch.float64),
                ]
            )
            scope = self._scope(group)
            sums[scope] = sums[scope] + pair if scope in sums else pair
        pairs = [pair.tolist() for pair in sums.values()]
        means = [weighted / slope if slope > 0 else 0.0 for weighted, slope in pairs]
        return dict(zip(sums, broadcast_from_rank0(means, self._device), strict=True))

"""Spartan: weights trained dense through a soft top-k mask that sharpens, used through its hard cut.

Source: Tai et al., "Spartan: Differentiable Sparsity via Regularized Transportation" (NeurIPS 2022), sections 3 and 4.
Written from the formulas; see docs/methods.md for what is chosen where the paper leaves it open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.sparsity.dense_trained import DenseTrained
from repro.sparsity.groups import Group
from repro.sparsity.hard_topk import Cut, Segment
from repro.sparsity.ranks import as_on_the_first
from repro.sparsity.soft_topk import Soft, pulled_back, soft_pieces, soft_topk, solve

__all__ = ["Spartan", "soft_topk"]

FIRST_BETA = 1.0


class Spartan(DenseTrained):
    """The used weight is theta * m on the support, m the soft top-k of |theta|; the cut passes gradients as they are.

    So a weight outside the support goes on learning, as far as m lets it (dual averaging), and the gradient of m
    itself is followed as well.

    Args:
        beta_max: sharpness when the mask freezes, for single entries; blocks have it times the root of their entries.
        frozen_mask: what the weights keep being multiplied by when the mask freezes: `soft`, m on the support as in the
            released code; `hard`, 1.

    Raises `UserError` as `DenseTrained`, and for a beta_max below the 1 that it starts from.
    """

    def __init__(self, model: nn.Module, *, beta_max: float, frozen_mask: str, **shared: Any) -> None:
        if not FIRST_BETA <= beta_max < math.inf:
            raise UserError(f"method.weights.beta_max={beta_max}: must be at least {FIRST_BETA:g}, and finite")
        self.beta_max, self.frozen_mask = beta_max, frozen_mask
        self.soft: dict[int, Soft] = {}
        super().__init__(model, **shared)

    def soften(self, scope: int, segments: Sequence[Segment], where: Cut, budget: float, update: int) -> None:
        """Solve the scope's soft top-k, from the step before's."""
        beta = self.schedule.ramped(update, FIRST_BETA, self.beta_max * math.sqrt(self.group_size))
        found = solve(segments, budget, beta, self.soft.get(scope), where)
        self.soft[scope] = found.with_numbers(as_on_the_first(found.numbers, self._device))

    def multiplier(self, group: Group, support: Tensor) -> Tensor:
        """The soft mask, inside the support."""
        return support.mul_(self._mask(group))

    def pull_back(self, gradients: Mapping[str, Tensor]) -> None:
        """dL/dtheta = g m + sign(theta) dL/dv, with g the gradient by theta * m and v the sum of |theta|."""
        means = self._means(gradients)
        for group in self.groups:
            mask = self._mask(group)
            by_mask = self._by_mask(group, gradients)
            soft = self.soft[self._scope(group)]
            by_value = pulled_back(by_mask, mask, group.costs, soft.beta, means[self._scope(group)])
            for name in group.layers:
                gradient = gradients[name]
                gradient.mul_(group.spread(mask, name))
                gradient.addcmul_(self.dense[name].sign(), group.spread(by_value, name))

    def frozen_multiplier(self, group: Group, name: str) -> Tensor:
        """The soft mask of this moment on the support, or the support."""
        support = super().frozen_multiplier(group, name)
        return support if self.frozen_mask == "hard" else support * group.spread(self._mask(group), name)

    @property
    def beta(self) -> float:
        """Sharpness of the mask that is in use."""
        return self.soft[0].beta

    def metrics(self) -> dict[str, float]:
        """What every masked method logs, and the sharpness."""
        return {**super().metrics(), "beta": self.beta}

    def state_dict(self) -> dict[str, Any]:
        """And the solutions, from which masks follow entry by entry."""
        return {**super().state_dict(), "soft": {scope: soft.state_dict() for scope, soft in self.soft.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        self.soft = {scope: Soft.from_state(soft) for scope, soft in state["soft"].items()}

    def _scope(self, group: Group) -> int:
        return 0 if self.distribution == "global" else self.groups.index(group)

    def _mask(self, group: Group) -> Tensor:
        """The soft mask of a group's members, flat."""
        segment = group.segment(self.dense)
        mask = torch.empty_like(segment.values)
        for piece, part in soft_pieces(segment, self.soft[self._scope(group)]):
            mask[part] = piece
        return mask

    def _by_mask(self, group: Group, gradients: Mapping[str, Tensor]) -> Tensor:
        """dL/dm: the sum over a group of gradient times weight."""
        return group.total({name: gradients[name] * self.dense[name] for name in group.layers})

    def _means(self, gradients: Mapping[str, Tensor]) -> dict[int, float]:
        """sum g s / sum c s of each scope, s = m (1 - m): the first rank's, so that dense weights stay alike."""
        sums: dict[int, Tensor] = {}
        for group in self.groups:
            mask = self._mask(group)
            spread = mask * (1 - mask)
            costs = spread * group.costs
            pair = torch.stack(
                [(self._by_mask(group, gradients) * spread).sum(dtype=torch.float64), costs.sum(dtype=torch.float64)]
            )
            scope = self._scope(group)
            sums[scope] = sums[scope] + pair if scope in sums else pair
        found = {scope: pair.tolist() for scope, pair in sums.items()}
        means = [weighted / slope if slope > 0 else 0.0 for weighted, slope in found.values()]
        return dict(zip(found, as_on_the_first(means, self._device), strict=True))

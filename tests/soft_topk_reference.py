"""The soft top-k as an autograd function, to compare what the methods compute with automatic differentiation."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from repro.methods.weights.topk import Entries, soft_mask, solve, values_gradient


def soft_topk(values: Tensor, costs: Tensor | float, budget: float, beta: float) -> Tensor:
    """Return a mask in [0, 1] of cost `budget`, near 1 where value / cost is large. Differentiable in `values`."""
    return cast(Tensor, _SoftTopK.apply(values, costs, budget, beta))


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, costs: Tensor | float, budget: float, beta: float) -> Tensor:
        ratios = (values.detach() / costs).reshape(-1)
        entries = Entries(ratios, costs.detach().double().reshape(-1) if isinstance(costs, Tensor) else costs)
        mask = soft_mask(ratios, solve(entries, budget, beta)).view(values.shape)
        ctx.save_for_backward(mask)
        ctx.costs, ctx.beta = costs, beta
        return mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (mask,), (gradient,) = ctx.saved_tensors, gradients
        spread = mask * (1 - mask)
        slope = float((spread * ctx.costs).sum(dtype=torch.float64))
        mean = float((gradient * spread).sum(dtype=torch.float64)) / slope if slope > 0 else 0.0
        return values_gradient(gradient, mask, ctx.costs, ctx.beta, mean), None, None, None

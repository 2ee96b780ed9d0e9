"""The soft top-k as the Spartan paper computes it, by Sinkhorn iterations: a reference for tests and benchmarks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinkhorn_topk(
    values: Tensor,
    costs: Tensor | float,
    budget: float,
    beta: float,
    *,
    most_iterations: int = 100,
    least_change: float = 0.01,
) -> Tensor:
    """The mask of entropy-regularized transport from entries of mass c_i to `kept` (budget) and `dropped` (the rest).

    Each iteration scales the plan to the masses of the two destinations, then to those of the entries; both scalings
    are kept as logarithms. Iterations end when the relative change of sum m v is below `least_change` (the paper: 1 %,
    at most 100 iterations).

    Source: Tai et al., "Spartan" (NeurIPS 2022), section 3, written from the problem's definition.
    """
    mass = torch.as_tensor(costs, dtype=values.dtype).expand_as(values)
    total = float(mass.sum(dtype=torch.float64))
    logits = beta * values / mass
    offset = 0.0  # log of the scaling of `kept` over that of `dropped`
    before = None
    for _ in range(most_iterations):
        mask = torch.sigmoid(logits + offset)
        kept = float((mask * mass).sum(dtype=torch.float64))
        offset += math.log(budget / kept) - math.log((total - budget) / (total - kept))
        now = float((mask * values).sum(dtype=torch.float64))
        if before is not None and abs(now - before) <= least_change * abs(before):
            break
        before = now
    return torch.sigmoid(logits + offset)

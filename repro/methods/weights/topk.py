"""Top-k under a budget, hard and soft: which entries have the largest value / cost and fit into it together.

The hard top-k selects entries by decreasing value / cost until the next one would exceed the budget.

The soft top-k is the entropic optimal transport problem of Spartan (Tai et al., NeurIPS 2022, section 3). Its solution
is m_i = sigmoid(beta * v_i / c_i + lambda), with lambda such that sum c_i m_i = budget. The paper finds lambda by
Sinkhorn iterations on sorted values. The sum increases with lambda, so a safeguarded Newton iteration finds it without
sorting, in a few passes if it starts from the previous step's solution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repro.methods.weights.selection import NotANumber

_SLACK = 1e-9  # relative tolerance of the budget, for rounding errors of summed costs
_TOLERANCE = 1e-12  # relative error of the soft mask's cost at which the iteration ends
_TARGET = 1e-6  # largest relative error of the soft mask's cost
_MAX_PASSES = 400  # bisection alone needs fewer


@dataclass(frozen=True)
class Entries:
    """Entries that compete for one budget.

    Attributes:
        ratios: value / cost of each entry, at least 0; a flat float32 or float64 tensor.
        costs: one number above 0 for all entries, or a flat float64 tensor of the same length.
    """

    ratios: Tensor
    costs: Tensor | float

    @property
    def total(self) -> float:
        """Cost of all entries."""
        return float(self.costs.sum()) if isinstance(self.costs, Tensor) else self.costs * self.ratios.numel()

    @property
    def costs_of_each(self) -> Tensor:
        """Costs as a tensor, without a copy of one number for all."""
        return torch.as_tensor(self.costs, dtype=torch.float64, device=self.ratios.device).expand_as(self.ratios)

    def cost_of(self, mask: Tensor) -> float:
        """Return the cost of the entries in a flat bool tensor."""
        if isinstance(self.costs, Tensor):
            return float(self.costs[mask].sum())
        return self.costs * int(mask.count_nonzero())

    def cost_by_digit(self, digits: Tensor) -> Tensor:
        """Return the cost of the entries with digit 0, 1 and so on."""
        if isinstance(self.costs, Tensor):
            return torch.bincount(digits, self.costs)
        return torch.bincount(digits).double() * self.costs

    def where(self, mask: Tensor) -> Entries:
        """Return the entries in a flat bool tensor, in their order."""
        return Entries(self.ratios[mask], self.costs[mask] if isinstance(self.costs, Tensor) else self.costs)


@dataclass(frozen=True)
class Cut:
    """The result of a hard top-k: it selects entries above `threshold`, and the first `ties` of those equal to it.

    The threshold is the ratio of the first entry that does not fit, or -inf if all entries fit.
    """

    threshold: float
    ties: int

    @property
    def numbers(self) -> tuple[float, float]:
        """Threshold and ties, to broadcast to other ranks."""
        return self.threshold, float(self.ties)

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> Cut:
        """Build a cut from `numbers`."""
        return cls(numbers[0], int(numbers[1]))


@dataclass(frozen=True)
class SoftSolution:
    """The solution of a soft top-k: m = sigmoid(beta * (v / c - pivot) + shift). lambda is shift - beta * pivot.

    The mask passes from 0 to 1 near the pivot. At beta = 1e6, v / c - pivot is exact there, whereas beta * v / c +
    lambda would lose most digits.
    """

    beta: float
    pivot: float
    shift: float

    @property
    def numbers(self) -> tuple[float, float, float]:
        """The solution as numbers, to broadcast to other ranks."""
        return self.beta, self.pivot, self.shift

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> SoftSolution:
        """Build a solution from `numbers`."""
        return cls(*numbers)

    def state_dict(self) -> dict[str, float]:
        """Return plain values."""
        return {"beta": self.beta, "pivot": self.pivot, "shift": self.shift}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SoftSolution:
        """Restore what `state_dict` returned. States of version 0.1.0 hold more keys, which are not needed."""
        return cls(state["beta"], state["pivot"], state["shift"])


def find_cut(entries: Entries, budget: float) -> Cut:
    """Find the cut that selects entries by decreasing ratio until the next one would exceed the budget.

    Ties go to the first entries. Raises `NotANumber` if a ratio is NaN.
    """
    limit = budget * (1 + _SLACK)
    if entries.total <= limit:
        return Cut(-math.inf, 0)
    if bool(entries.ratios.max().isnan()):
        raise NotANumber("a score is not a number")
    # Numbers of at least 0 have the order of their bits. A radix select finds the digits of the threshold, 16 bits at a
    # time: the first digit, from above, at which the entries no longer fit.
    integers = torch.int32 if entries.ratios.dtype is torch.float32 else torch.int64
    spent = 0.0
    for shift in reversed(range(0, 8 * entries.ratios.itemsize, 16)):
        digits = (entries.ratios.view(integers) >> shift).bitwise_and_(0xFFFF)
        sums = entries.cost_by_digit(digits).flip(0).cumsum(0).add_(spent)
        # The lowest entry does not fit, as seen above: sums in another order may differ by a rounding error.
        fitting = int(((sums <= limit) & (sums < sums[-1])).sum())
        spent = float(sums[fitting - 1]) if fitting else spent
        entries = entries.where(digits == len(sums) - 1 - fitting)
    sums = entries.costs_of_each.cumsum(0).add_(spent)
    return Cut(float(entries.ratios[0]), int(torch.searchsorted(sums, limit, right=True)))


def hard_mask(entries: Entries, cut: Cut) -> Tensor:
    """Return the selected entries as a flat bool tensor."""
    mask = entries.ratios > cut.threshold
    if cut.ties:
        mask[(entries.ratios == cut.threshold).nonzero().flatten()[: cut.ties]] = True
    return mask


def soft_mask(ratios: Tensor, solution: SoftSolution) -> Tensor:
    """Return the mask of entries with these ratios, in their precision."""
    mask = torch.empty_like(ratios)
    size = _chunk_size(ratios)
    for source, target in zip(ratios.split(size), mask.split(size), strict=True):
        target.copy_(_logistic(source, solution))
    return mask


def solve(
    entries: Entries, budget: float, beta: float, start: SoftSolution | None = None, cut: Cut | None = None
) -> SoftSolution:
    """Find the soft mask whose cost is the budget, to within a relative error of 1e-6.

    Args:
        entries: what competes for the budget.
        budget: cost of the mask, at least 0; if it is at least the cost of all entries, the mask is 1 everywhere.
        beta: sharpness, from 0 (the same mask for every entry) to 1e6 (nearly hard).
        start: initial guess: the solution of a similar problem, such as that of the previous step.
        cut: the hard cut of the same or a similar budget, if known.
    """
    total = entries.total
    if total <= budget * (1 + _SLACK):
        return SoftSolution(beta, 0.0, math.inf)
    if budget == 0:
        return SoftSolution(beta, 0.0, -math.inf)
    if cut is None or math.isinf(cut.threshold):
        cut = find_cut(entries, budget)
    # However sharp the mask is, it passes from 0 to 1 near the first entry that does not fit.
    pivot = cut.threshold
    shift = start.shift if start is not None and math.isfinite(start.shift) else 0.0
    low, high, stride = -math.inf, math.inf, 1.0
    best = (math.inf, shift)
    for _ in range(_MAX_PASSES):
        cost, slope = _cost(entries, SoftSolution(beta, pivot, shift))
        excess = cost - budget
        best = min(best, (abs(excess), shift))
        if abs(excess) <= _TOLERANCE * budget:
            break
        low, high = (low, shift) if excess > 0 else (shift, high)
        # Newton's step. The cost is convex on one side and concave on the other: a long step may overshoot by far.
        step = -excess / slope if slope > 0 else math.copysign(math.inf, -excess)
        guess = shift + max(-stride, min(stride, step))
        stride = 2 * stride if abs(step) > stride else max(1.0, abs(step))
        if not low < guess < high:
            guess = (low + high) / 2
        if guess in (low, high) or not math.isfinite(guess):
            break
        shift = guess
    error, shift = best
    if error > _TARGET * budget:
        raise ArithmeticError(f"no mask costs {budget:g} of {total:g} at beta={beta:g}: off by {error:g}")
    return SoftSolution(beta, pivot, shift)


def values_gradient(gradient: Tensor, mask: Tensor, cost: Tensor | float, beta: float, mean: float) -> Tensor:
    """Return the gradient w.r.t. the values, from the gradient w.r.t. the soft mask.

    With s = m (1 - m): dL/dv_i = beta s_i (g_i / c_i - mean), mean = sum g_j s_j / sum c_j s_j. This is
    the derivative of m_i = sigmoid(beta v_i / c_i + lambda) under sum c_i m_i = budget, which gives d lambda = - beta
    sum s_j dv_j / sum c_j s_j. (The paper writes the denominator as k - sum c_j m_j^2, which is the same sum.)
    """
    return (gradient / cost).sub_(mean).mul_(mask).mul_(1 - mask).mul_(beta)


def _cost(entries: Entries, solution: SoftSolution) -> tuple[float, float]:
    """Return the cost of the soft mask, and its derivative w.r.t. lambda: sum c_i m_i (1 - m_i)."""
    size = _chunk_size(entries.ratios)
    # Read once, because every read waits for a GPU.
    sums = torch.zeros(2, dtype=torch.float64, device=entries.ratios.device)
    for ratios, costs in zip(entries.ratios.split(size), entries.costs_of_each.split(size), strict=True):
        mask = _logistic(ratios, solution)
        costs_inside = mask * costs
        sums[0] += costs_inside.sum()
        sums[1] += costs_inside.mul_(1 - mask).sum()
    cost, slope = sums.tolist()
    return cost, slope


def _logistic(ratios: Tensor, solution: SoftSolution) -> Tensor:
    return (ratios.double() - solution.pivot).mul_(solution.beta).add_(solution.shift).sigmoid_()


def _chunk_size(values: Tensor) -> int:
    """Return how many entries to compute in float64 at a time: little memory, which stays in a CPU's cache."""
    return 1 << 16 if values.device.type == "cpu" else 1 << 24

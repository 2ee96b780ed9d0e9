"""Soft top-k: a mask between 0 and 1 with a given cost.

The entropic optimal transport problem of Spartan (Tai et al., NeurIPS 2022, section 3) has the solution
m_i = sigmoid(beta * v_i / c_i + lambda), with lambda such that sum c_i m_i = budget. The paper finds lambda by Sinkhorn
iterations on sorted values. The sum increases with lambda, so a safeguarded Newton iteration finds it in a few passes,
or in two or three from the previous step's solution, without sorting.

Large problems are processed in pieces that stay in the cache; the mask is the only additional memory of their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from repro.methods.weights.hard_topk import Cut, Segment, entries_between, find_cut, next_below, ratio_buffer, subsample

EXACT_BELOW = 1 << 16  # up to this many entries are computed in float64, regardless of the dtype of the values
SAMPLED_ABOVE = 1 << 20  # with more entries, a sample gives the initial guess
_MAX_PASSES = 400  # bisection alone needs fewer
_SAMPLE = 1 << 18  # maximum size of a sample; it has at most a sixteenth of the entries
_SAMPLE_TOLERANCE = 1e-4  # relative accuracy of a sample
_SATURATED = 40.0  # beyond this magnitude of its argument, a logistic function is 0 or 1 to within 1e-17
_NARROW = 0.1  # if fewer than this share of entries are near the threshold, iterate only over these
# Relative to the budget. One step of a float32 shift changes the cost by up to this much.
_TOLERANCE = {torch.float32: 4e-7, torch.float64: 1e-14}
_TARGET = 1e-6  # maximum relative error of the mask's cost
_SINGLE_UNTIL = 1e-6  # if budget / total cost is this close to 0 or 1, float32 steps of the shift are too large


@dataclass(frozen=True)
class SoftSolution:
    """The solution of a soft top-k: m = sigmoid(beta * (v / c - pivot) + shift). lambda is shift - beta * pivot.

    The mask passes from 0 to 1 near the pivot. At beta = 1e6, v / c - pivot is exact there in float32, whereas
    beta * v / c + lambda would lose all digits. `slope` is sum c_i m_i (1 - m_i), the derivative of the mask's cost
    w.r.t. lambda. `dtype` is the precision of the computation.
    """

    beta: float
    pivot: float
    shift: float
    slope: float
    dtype: torch.dtype

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """The solution, and whether it is in float64, to broadcast to other ranks."""
        return self.pivot, self.shift, self.slope, float(self.dtype is torch.float64)

    def with_numbers(self, numbers: Sequence[float]) -> SoftSolution:
        """Return the solution of another rank for the same problem."""
        pivot, shift, slope, is_double = numbers
        dtype = torch.float64 if is_double else torch.float32
        return replace(self, pivot=pivot, shift=shift, slope=slope, dtype=dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        numbers = {"beta": self.beta, "pivot": self.pivot, "shift": self.shift, "slope": self.slope}
        return {**numbers, "is_double": self.dtype is torch.float64}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SoftSolution:
        """Restore what `state_dict` returned."""
        dtype = torch.float64 if state["is_double"] else torch.float32
        return cls(state["beta"], state["pivot"], state["shift"], state["slope"], dtype)


def soft_topk(values: Tensor, costs: Tensor | float, budget: float, beta: float) -> Tensor:
    """Return a mask in [0, 1] of cost `budget`, near 1 where value / cost is large. Differentiable in `values`.

    Args:
        values: any shape, float32 or float64, finite.
        costs: cost of each entry, above 0: one number, or a tensor of the values' shape.
        budget: cost of the mask, at least 0; if it is at least the sum of all costs, the mask is 1 everywhere.
        beta: sharpness, from 0 (the same for every entry) to 1e6 (nearly hard).

    Returns:
        A tensor like `values`. The sum of costs * mask equals the budget to within a relative error of 1e-6. The
        gradient is zero if the budget is 0 or covers all costs.

    Raises:
        ValueError: for a beta below 0 or infinite, a budget below 0 or NaN, or a cost that is not above 0.
        TypeError: for values of another dtype, whose precision is too low to meet the budget.
    """
    if values.dtype not in _TOLERANCE:
        raise TypeError(f"values of {values.dtype}: must be float32 or float64")
    return cast(Tensor, _SoftTopK.apply(values, costs, budget, beta))


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, costs: Tensor | float, budget: float, beta: float) -> Tensor:
        flat = None if isinstance(costs, float | int) else costs.detach().to(values.device, values.dtype).reshape(-1)
        segment = Segment(values.detach().reshape(-1), float(costs) if flat is None else flat)
        solution = solve([segment], budget, beta)
        mask = torch.empty_like(segment.values)
        for piece, part in soft_pieces(segment, solution):
            mask[part] = piece
        ctx.save_for_backward(mask)
        ctx.segment_costs, ctx.beta = segment.costs, beta
        return mask.view(values.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (mask,), (gradient,) = ctx.saved_tensors, gradients
        flat = gradient.reshape(-1)
        segment = Segment(mask, ctx.segment_costs)
        weighted = slope = 0.0
        for part in segment.pieces():
            spread = mask[part] * (1 - mask[part])
            weighted += float((flat[part] * spread).sum(dtype=torch.float64))
            slope += float((spread * segment.cost(part)).sum(dtype=torch.float64))
        mean = weighted / slope if slope > 0 else 0.0
        result = torch.empty_like(flat)
        for part in segment.pieces():
            result[part] = values_gradient(flat[part], mask[part], segment.cost(part), ctx.beta, mean)
        return result.view(gradient.shape), None, None, None


def values_gradient(gradient: Tensor, mask: Tensor, cost: Tensor | float, beta: float, mean: float) -> Tensor:
    """Return the gradient w.r.t. the values, from the gradient w.r.t. the mask.

    With s = m (1 - m): dL/dv_i = beta s_i (g_i / c_i - mean), mean = sum g_j s_j / sum c_j s_j. This is
    the derivative of m_i = sigmoid(beta v_i / c_i + lambda) under sum c_i m_i = budget, which gives d lambda = - beta
    sum s_j dv_j / sum c_j s_j. (The paper writes the denominator as k - sum c_j m_j^2, which is the same sum.)
    """
    return (gradient / cost).sub_(mean).mul_(mask).mul_(1 - mask).mul_(beta)


def solve(
    segments: Sequence[Segment], budget: float, beta: float, start: SoftSolution | None = None, hard: Cut | None = None
) -> SoftSolution:
    """Find lambda for one budget over several tensors.

    Args:
        segments: values and costs.
        budget: see `soft_topk`.
        beta: see `soft_topk`.
        start: initial guess: the solution of a similar problem, such as that of the previous step.
        hard: the hard cut of the same or a similar problem, if known. Its threshold becomes the pivot.

    Raises `ValueError` as `soft_topk` does.
    """
    _check(budget, beta)
    total = sum(segment.total_cost() for segment in segments)
    entries = sum(segment.values.numel() for segment in segments)
    is_large = entries > EXACT_BELOW and not all(segment.values.dtype is torch.float64 for segment in segments)
    is_single = is_large and _SINGLE_UNTIL * total < budget < (1 - _SINGLE_UNTIL) * total
    dtype = torch.float32 if is_single else torch.float64
    if entries == 0 or budget >= total:
        return SoftSolution(beta, 0.0, math.inf, 0.0, dtype)
    if budget == 0:
        return SoftSolution(beta, 0.0, -math.inf, 0.0, dtype)
    # The cut of a slightly larger budget is close enough, unless it selects all.
    cut = hard if hard is not None and math.isfinite(hard.threshold) else find_cut(segments, budget)
    solution, error = _solve_near(segments, budget, total, beta, cut.threshold, start, dtype)
    if error > _TARGET * budget:
        # The mask passes from 0 to 1 so far below the last selected entry that the shift has no digits left. It does
        # so at the next entry, which gets the budget that the hard cut leaves unused.
        pivot = next_below(segments, find_cut(segments, budget))
        shift, slope, _, error = _newton(segments, budget, beta, pivot, 0.0, torch.float64)
        solution = SoftSolution(beta, pivot, shift, slope, torch.float64)
    if error > _TARGET * budget:
        raise ArithmeticError(f"no mask costs {budget:g} of {total:g} at beta={beta:g}: off by {error:g}")
    return solution


def _solve_near(
    segments: Sequence[Segment],
    budget: float,
    total: float,
    beta: float,
    pivot: float,
    start: SoftSolution | None,
    dtype: torch.dtype,
) -> tuple[SoftSolution, float]:
    """Return the solution near a pivot, and the error of its cost. `total` is the cost of all entries."""
    entries = sum(segment.values.numel() for segment in segments)
    shift = start.shift if start is not None and math.isfinite(start.shift) else None
    if shift is None and beta == 0:
        shift = _logit(budget / total)
    curvature = None
    if entries > SAMPLED_ABOVE:
        sample = subsample(segments, min(_SAMPLE, entries // 16))
        share = sum(part.total_cost() for part in sample) / total
        edge = _SATURATED / beta if beta else math.inf
        # Relative to the hard threshold of the sample: a sample estimates this shift well, however sharp the mask is.
        sample_pivot = find_cut(sample, budget * share).threshold
        inside = len(entries_between(sample, sample_pivot - edge, sample_pivot + edge)[1])
        is_narrow = inside < _NARROW * sum(part.values.numel() for part in sample)
        if is_narrow and (narrow := _solve_narrow(segments, budget, beta, pivot, edge, dtype)):
            return narrow
        shift, _, curvature, _ = _newton(
            sample, budget * share, beta, sample_pivot, shift or 0.0, dtype, tolerance=_SAMPLE_TOLERANCE
        )
        curvature /= share
    shift, slope, _, error = _newton(segments, budget, beta, pivot, _rounded(shift or 0.0, dtype), dtype, curvature)
    return SoftSolution(beta, pivot, shift, slope, dtype), error


def _solve_narrow(
    segments: Sequence[Segment], budget: float, beta: float, pivot: float, edge: float, dtype: torch.dtype
) -> tuple[SoftSolution, float] | None:
    """Solve as `_solve_near`, but iterate only over entries near the pivot: the mask of all others is 0 or 1.

    Return None if the mask passes from 0 to 1 so far from the pivot that other entries matter.
    """
    above, ratios, costs = entries_between(segments, pivot - edge, pivot + edge)
    near = [Segment(ratios, costs, is_ratio=True)]
    shift, slope, _, error = _newton(near, budget - above, beta, pivot, 0.0, torch.float64, target=budget)
    return (SoftSolution(beta, pivot, shift, slope, dtype), error) if abs(shift) < _SATURATED / 2 else None


def soft_pieces(segment: Segment, solution: SoftSolution) -> Iterator[tuple[Tensor, slice]]:
    """Yield pieces of the mask of a segment with their slices. The next piece overwrites the tensor of the last one."""
    buffer = ratio_buffer(segment)
    for part in segment.pieces():
        # The pivot is one of these ratios. Computed in another precision, they would differ from it by more than a
        # sharp mask tolerates.
        ratio = segment.ratio(part, buffer).to(solution.dtype)
        if math.isinf(solution.shift):
            yield ratio.fill_(float(solution.shift > 0)), part
        else:
            yield ratio.sub_(solution.pivot).mul_(solution.beta).add_(solution.shift).sigmoid_(), part


def _newton(
    segments: Sequence[Segment],
    budget: float,
    beta: float,
    pivot: float,
    shift: float,
    dtype: torch.dtype,
    curvature: float | None = None,
    target: float | None = None,
    tolerance: float | None = None,
) -> tuple[float, float, float, float]:
    """Return the shift at which the mask costs `budget`, the cost's first two derivatives there, and the cost's error.

    Every pass narrows a bracket. A step that would leave it, or that is unreliable because the cost hardly changes, is
    replaced by a bisection, or by a longer step while one side is open. A `curvature` estimated from a sample makes the
    first step third-order; computing it here would need another sum in each pass. `tolerance` is relative to `target`
    (None: the budget).
    """
    close_enough = (tolerance or _TOLERANCE[dtype]) * (budget if target is None else target)
    low, high, stride = -math.inf, math.inf, 1.0
    best = (math.inf, shift, 0.0, 0.0)
    for number in range(_MAX_PASSES):
        cost, slope, bend = _cost(segments, SoftSolution(beta, pivot, shift, 0.0, dtype), curvature is None)
        excess = cost - budget
        best = min(best, (abs(excess), shift, slope, bend))
        if abs(excess) <= close_enough:
            break
        low, high = (low, shift) if excess > 0 else (shift, high)
        bend = curvature or 0.0 if curvature is not None and not number else bend
        step = _step(excess, slope, bend)
        # The cost is convex on one side and concave on the other: a long step may overshoot by far.
        guess = _rounded(shift + max(-stride, min(stride, step)), dtype)
        stride = 2 * stride if abs(step) > stride else max(1.0, abs(step))
        if not low < guess < high:
            guess = _rounded((low + high) / 2, dtype)
        if guess in (low, high) or not math.isfinite(guess):
            break
        shift = guess
    error, shift, slope, bend = best
    return shift, slope, bend, error


def _rounded(number: float, dtype: torch.dtype) -> float:
    """Round a number to the precision in which it will be used."""
    return float(np.float32(number)) if dtype is torch.float32 else number


def _step(excess: float, slope: float, bend: float) -> float:
    """Return Halley's step towards an excess of 0, which is Newton's if `bend`, the second derivative, is 0."""
    if slope <= 0:
        return math.copysign(math.inf, -excess)
    step = -excess / slope
    correction = 1 + bend * step / (2 * slope)
    return step / correction if 0.5 < correction < 2 else step


def _cost(segments: Sequence[Segment], solution: SoftSolution, with_bend: bool) -> tuple[float, float, float]:
    """Return the cost of the mask and its first and second derivatives w.r.t. lambda (0 without `with_bend`)."""
    cost = slope = bend = 0.0
    for segment in segments:
        # Read once per segment, because each read synchronizes a GPU.
        sums = torch.zeros(3, dtype=torch.float64, device=segment.values.device)
        for mask, part in soft_pieces(segment, solution):
            weights = segment.cost(part)
            power = mask if not isinstance(weights, Tensor) else mask * weights
            for order in range(3 if with_bend else 2):
                sums[order] += power.sum(dtype=torch.float64)
                if order < 2:
                    power = power * mask
        first, second, third = (float(value) for value in sums.tolist())
        scale = segment.costs if not isinstance(segment.costs, Tensor) else 1.0
        cost += scale * first
        slope += scale * max(0.0, first - second)
        bend += scale * (first - 3 * second + 2 * third)
    return cost, slope, bend


def _logit(share: float) -> float:
    return math.log(share) - math.log1p(-share)


def _check(budget: float, beta: float) -> None:
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta={beta}: must be at least 0, and finite")
    if not budget >= 0:
        raise ValueError(f"budget={budget}: must be at least 0")

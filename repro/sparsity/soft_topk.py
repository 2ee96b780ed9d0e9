"""Soft top-k: a mask between 0 and 1 whose cost is a budget, by one number instead of a sort.

The entropic optimal transport problem behind it (Tai et al., "Spartan", NeurIPS 2022, section 3) has the solution
m_i = sigmoid(beta * v_i / c_i + lambda), with lambda such that sum c_i m_i = budget. The paper finds lambda by Sinkhorn
iterations on sorted values; the left-hand side rises with lambda, so a safeguarded Newton iteration finds it in a few
passes, warm from the step before in two or three.

Large problems are read in pieces that stay in the cache; nothing as large as the problem is kept besides the mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from repro.sparsity.hard_topk import Cut, Segment, between, cut, next_below, own_buffer, sampled

EXACT_BELOW = 1 << 16  # entries up to which all is computed in float64, whatever the values' type
_SAMPLED_ABOVE = 1 << 20  # entries from which a sample says where to begin
_MOST_PASSES = 400  # bisection alone needs fewer
_SAMPLE = 1 << 18  # entries of a sample at most, and a sixteenth of all
_SAMPLE_TOLERANCE = 1e-4  # a sample is no better than that
_SATURATED = 40.0  # where a logistic function is 0 or 1 to 1e-17
_NARROW = 0.1  # share of entries below which only those near the threshold are iterated over
# Of the budget. In float32 the shift itself has steps that move the cost by up to this much.
_TOLERANCE = {torch.float32: 4e-7, torch.float64: 1e-14}
_TARGET = 1e-6  # what a mask may miss its budget by, as a share of it
_SINGLE_UNTIL = 1e-6  # share of the budget in all costs, or of what is left, below which those steps would be too large


@dataclass(frozen=True)
class Soft:
    """A solved soft top-k: m = sigmoid(beta * (v / c - pivot) + shift). lambda is shift - beta * pivot.

    The pivot is a value near which the mask passes from 0 to 1: at beta = 1e6 single-precision v / c - pivot is exact
    there, beta * v / c + lambda would have lost every digit. `slope` is sum c_i m_i (1 - m_i), the derivative of the
    mask's cost by lambda. `dtype` is what is computed in.
    """

    beta: float
    pivot: float
    shift: float
    slope: float
    dtype: torch.dtype

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """What was found, and whether in float64, to be told to other ranks."""
        return self.pivot, self.shift, self.slope, float(self.dtype is torch.float64)

    def with_numbers(self, numbers: Sequence[float]) -> Soft:
        """The same problem with another rank's solution."""
        pivot, shift, slope, is_double = numbers
        dtype = torch.float64 if is_double else torch.float32
        return replace(self, pivot=pivot, shift=shift, slope=slope, dtype=dtype)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        numbers = {"beta": self.beta, "pivot": self.pivot, "shift": self.shift, "slope": self.slope}
        return {**numbers, "is_double": self.dtype is torch.float64}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Soft:
        """Take back what `state_dict` gave."""
        dtype = torch.float64 if state["is_double"] else torch.float32
        return cls(state["beta"], state["pivot"], state["shift"], state["slope"], dtype)


def soft_topk(values: Tensor, costs: Tensor | float, budget: float, beta: float) -> Tensor:
    """A mask in [0, 1] of cost `budget`, close to 1 where value / cost is large; differentiable in `values`.

    Args:
        values: any shape, float32 or float64, finite.
        costs: what an entry costs, above 0: one number, or a tensor of the values' shape.
        budget: what the mask may cost, at least 0; from the sum of all costs on, the mask is 1 everywhere.
        beta: sharpness, 0 (the same for every entry) to 1e6 (all but hard).

    Returns:
        A tensor like `values`; sum of costs * mask is the budget to 1e-6 relative. Its gradient by the values is zero
        where the budget leaves no choice.

    Raises:
        ValueError: for a beta below 0 or infinite, a budget below 0 or not a number, a cost that is not above 0.
        TypeError: for values of another type, whose steps are wider than the budget allows.
    """
    if values.dtype not in _TOLERANCE:
        raise TypeError(f"values of {values.dtype}: a budget is kept in float32 or float64")
    return cast(Tensor, _SoftTopK.apply(values, costs, budget, beta))


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, costs: Tensor | float, budget: float, beta: float) -> Tensor:
        flat = None if isinstance(costs, float | int) else costs.detach().to(values.device, values.dtype).reshape(-1)
        segment = Segment(values.detach().reshape(-1), float(costs) if flat is None else flat)
        found = solve([segment], budget, beta)
        mask = torch.empty_like(segment.values)
        for piece, part in soft_pieces(segment, found):
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
        for part in segment.parts():
            spread = mask[part] * (1 - mask[part])
            weighted += float((flat[part] * spread).sum(dtype=torch.float64))
            slope += float((spread * segment.cost(part)).sum(dtype=torch.float64))
        mean = weighted / slope if slope > 0 else 0.0
        result = torch.empty_like(flat)
        for part in segment.parts():
            result[part] = pulled_back(flat[part], mask[part], segment.cost(part), ctx.beta, mean)
        return result.view(gradient.shape), None, None, None


def pulled_back(gradient: Tensor, mask: Tensor, cost: Tensor | float, beta: float, mean: float) -> Tensor:
    """The gradient by the values from that by the mask.

    With s = m (1 - m): dL/dv_i = beta s_i (g_i / c_i - mean), mean = sum g_j s_j / sum c_j s_j. It follows from
    differentiating m_i = sigmoid(beta v_i / c_i + lambda) and sum c_i m_i = budget together: d lambda = - beta
    sum s_j dv_j / sum c_j s_j. (The paper writes the denominator as k - sum c_j m_j^2, which is the same sum.)
    """
    return (gradient / cost).sub_(mean).mul_(mask).mul_(1 - mask).mul_(beta)


def solve(
    segments: Sequence[Segment], budget: float, beta: float, start: Soft | None = None, hard: Cut | None = None
) -> Soft:
    """Find lambda for one budget over several tensors.

    Args:
        segments: values and costs.
        budget: see `soft_topk`.
        beta: see `soft_topk`.
        start: the solution of a problem like this one (the step before's), to begin with.
        hard: the same problem's hard cut, or one like it, where it is known: its threshold becomes the pivot.

    Raises `ValueError` as `soft_topk`.
    """
    _check(budget, beta)
    total = sum(segment.total_cost() for segment in segments)
    entries = sum(segment.values.numel() for segment in segments)
    is_large = entries > EXACT_BELOW and not all(segment.values.dtype is torch.float64 for segment in segments)
    is_single = is_large and _SINGLE_UNTIL * total < budget < (1 - _SINGLE_UNTIL) * total
    dtype = torch.float32 if is_single else torch.float64
    if entries == 0 or budget >= total:
        return Soft(beta, 0.0, math.inf, 0.0, dtype)
    if budget == 0:
        return Soft(beta, 0.0, -math.inf, 0.0, dtype)
    # A cut of a slightly larger budget will do, but not one that takes all.
    where = hard if hard is not None and math.isfinite(hard.threshold) else cut(segments, budget)
    found, missed = _found(segments, budget, total, beta, where.threshold, start, dtype)
    if missed > _TARGET * budget:
        # The mask passes from 0 to 1 so far below the last entry of the hard cut that the shift has no digits left for
        # it. It does so at the next entry: whatever the hard cut leaves of the budget is that one's.
        pivot = next_below(segments, cut(segments, budget))
        shift, slope, _, missed = _newton(segments, budget, beta, pivot, 0.0, torch.float64)
        found = Soft(beta, pivot, shift, slope, torch.float64)
    if missed > _TARGET * budget:
        raise ArithmeticError(f"no mask costs {budget:g} of {total:g} at beta={beta:g}: {missed:g} is missing")
    return found


def _found(
    segments: Sequence[Segment],
    budget: float,
    total: float,
    beta: float,
    pivot: float,
    start: Soft | None,
    dtype: torch.dtype,
) -> tuple[Soft, float]:
    """The solution near a pivot, and by how much its cost misses the budget; `total` is what all entries cost."""
    entries = sum(segment.values.numel() for segment in segments)
    shift = start.shift if start is not None and math.isfinite(start.shift) else None
    if shift is None and beta == 0:
        shift = _logit(budget / total)
    curvature = None
    if entries > _SAMPLED_ABOVE:
        few = sampled(segments, min(_SAMPLE, entries // 16))
        share = sum(part.total_cost() for part in few) / total
        edge = _SATURATED / beta if beta else math.inf
        # Relative to its own hard threshold: that is what a sample knows well, however sharp the mask is.
        own = cut(few, budget * share).threshold
        inside = len(between(few, own - edge, own + edge)[1])
        narrow = inside < _NARROW * sum(part.values.numel() for part in few)
        if narrow and (found := _near_the_threshold(segments, budget, beta, pivot, edge, dtype)):
            return found
        shift, _, curvature, _ = _newton(
            few, budget * share, beta, own, shift or 0.0, dtype, tolerance=_SAMPLE_TOLERANCE
        )
        curvature /= share
    shift, slope, _, missed = _newton(segments, budget, beta, pivot, _rounded(shift or 0.0, dtype), dtype, curvature)
    return Soft(beta, pivot, shift, slope, dtype), missed


def _near_the_threshold(
    segments: Sequence[Segment], budget: float, beta: float, pivot: float, edge: float, dtype: torch.dtype
) -> tuple[Soft, float] | None:
    """As `_found` where the mask is 0 or 1 but for a few entries: only they are read again and again.

    None where the mask passes from 0 to 1 so far from the pivot that others take part.
    """
    above, ratios, costs = between(segments, pivot - edge, pivot + edge)
    few = [Segment(ratios, costs, is_ratio=True)]
    shift, slope, _, missed = _newton(few, budget - above, beta, pivot, 0.0, torch.float64, target=budget)
    return (Soft(beta, pivot, shift, slope, dtype), missed) if abs(shift) < _SATURATED / 2 else None


def soft_pieces(segment: Segment, found: Soft) -> Iterator[tuple[Tensor, slice]]:
    """The mask of a segment piece by piece, with the place of each; a piece is overwritten by the next."""
    buffer = own_buffer(segment)
    for part in segment.parts():
        # The pivot is one of these numbers: divided in another precision it would be off by more than a sharp mask
        # bears.
        ratio = segment.ratio(part, buffer).to(found.dtype)
        if math.isinf(found.shift):
            yield ratio.fill_(float(found.shift > 0)), part
        else:
            yield ratio.sub_(found.pivot).mul_(found.beta).add_(found.shift).sigmoid_(), part


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
    """The shift at which the mask costs `budget`, the cost's first and second derivative there, and what is missing.

    Every pass narrows a bracket; a step that would leave it, or that is not to be trusted because the cost hardly
    changes, is replaced by a bisection, or by a longer step while one side is still open. A `curvature` that a sample
    has told makes the first step exact to third order, for which the cost's own would need another sum a pass.
    `target` is what the tolerance, a share, is counted from.
    """
    close_enough = (tolerance or _TOLERANCE[dtype]) * (budget if target is None else target)
    low, high, stride = -math.inf, math.inf, 1.0
    best = (math.inf, shift, 0.0, 0.0)
    for number in range(_MOST_PASSES):
        cost, slope, bend = _cost(segments, Soft(beta, pivot, shift, 0.0, dtype), curvature is None)
        excess = cost - budget
        best = min(best, (abs(excess), shift, slope, bend))
        if abs(excess) <= close_enough:
            break
        low, high = (low, shift) if excess > 0 else (shift, high)
        bend = curvature or 0.0 if curvature is not None and not number else bend
        step = _step(excess, slope, bend)
        # The cost is convex on one side and concave on the other: a long step may pass the solution by far.
        guess = _rounded(shift + max(-stride, min(stride, step)), dtype)
        stride = 2 * stride if abs(step) > stride else max(1.0, abs(step))
        if not low < guess < high:
            guess = _rounded((low + high) / 2, dtype)
        if guess in (low, high) or not math.isfinite(guess):
            break
        shift = guess
    missed, *solution = best
    return solution[0], solution[1], solution[2], missed


def _rounded(number: float, dtype: torch.dtype) -> float:
    """A number as it will be used."""
    return float(np.float32(number)) if dtype is torch.float32 else number


def _step(excess: float, slope: float, bend: float) -> float:
    """Halley's step towards excess 0; Newton's where the bend is not known (0)."""
    if slope <= 0:
        return math.copysign(math.inf, -excess)
    step = -excess / slope
    correction = 1 + bend * step / (2 * slope)
    return step / correction if 0.5 < correction < 2 else step


def _cost(segments: Sequence[Segment], found: Soft, with_bend: bool) -> tuple[float, float, float]:
    """Cost of the mask and its first and second derivative by lambda (0 unless asked for), in float64 sums."""
    cost = slope = bend = 0.0
    for segment in segments:
        # Summed where they are; read once a segment: each reading makes a GPU wait.
        sums = torch.zeros(3, dtype=torch.float64, device=segment.values.device)
        for mask, part in soft_pieces(segment, found):
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

"""Hard top-k over several tensors under a budget: selects the entries with the highest value / cost that fit into it.

The result is the same on every rank and device: ties go to the first entry, in the order of the tensors and in memory
order within each. A sample brackets the threshold; one pass then sums the costs above the bracket and collects the
entries inside it, and only these are sorted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from repro.methods.weights.selection import NotANumber

_PIECE = {"cpu": 1 << 18}  # entries processed at a time, so that a piece and its results stay in the cache
_SAMPLE = 1 << 18  # maximum size of a sample; it has at most a sixteenth of the entries
_SORT_ALL = 1 << 14  # up to this many entries are sorted without a sample
_BRACKET_SIGMAS = 6.0  # standard deviations of the sample quantile; a bracket that misses costs another pass
_SLACK = 1e-9  # relative tolerance of the budget, for rounding errors of summed costs


@dataclass(frozen=True)
class Segment:
    """Entries of one tensor that compete for the budget.

    Attributes:
        values: flat tensor.
        costs: one number above 0 for all entries, or a flat tensor of the same length.
        is_signed: whether to use absolute values, computed piece by piece without a copy of all.
        is_ratio: whether values have been divided by costs already.
    """

    values: Tensor
    costs: Tensor | float = 1.0
    is_signed: bool = False
    is_ratio: bool = False

    def __post_init__(self) -> None:
        smallest = float(self.costs.min()) if isinstance(self.costs, Tensor) and self.costs.numel() else self.costs
        if not isinstance(smallest, Tensor) and not smallest > 0:
            raise ValueError(f"a cost of {smallest:g}: every cost must be above 0")

    def pieces(self) -> Iterator[slice]:
        """Yield the pieces in which the segment is processed."""
        size, length = piece_size(self.values), self.values.numel()
        for start in range(0, length, size):
            yield slice(start, min(start + size, length))

    def cost(self, part: slice) -> Tensor | float:
        """Return the costs of a piece."""
        return self.costs[part] if isinstance(self.costs, Tensor) else self.costs

    def total_cost(self) -> float:
        """Return the cost of all entries."""
        if isinstance(self.costs, Tensor):
            return float(self.costs.sum(dtype=torch.float64))
        return self.costs * self.values.numel()

    def cost_of(self, mask: Tensor) -> float:
        """Return the cost of the entries in a flat bool tensor."""
        if isinstance(self.costs, Tensor):
            return float(self.costs[mask].sum(dtype=torch.float64))
        return self.costs * float(mask.sum())

    def ratio(self, part: slice, buffer: Tensor) -> Tensor:
        """Compute value / cost of a piece, into `buffer` and in its precision."""
        source = self.values[part]
        out = buffer[: source.numel()]
        if self.is_signed and out.dtype == source.dtype:
            torch.abs(source, out=out)
        else:
            out.copy_(source)
            if self.is_signed:
                out.abs_()
        cost = self.cost(part)
        return out if self.is_ratio or (isinstance(cost, float) and cost == 1) else out.div_(cost)


@dataclass(frozen=True)
class Cut:
    """The result of a hard top-k: it selects entries above `threshold`, and the first `ties` of those equal to it."""

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


def piece_size(values: Tensor) -> int:
    """Return how many entries to process at a time."""
    return _PIECE.get(values.device.type, 1 << 27)


def find_cut(segments: Sequence[Segment], budget: float) -> Cut:
    """Find the cut that selects entries by decreasing value / cost until the next one would exceed the budget.

    Raises `NotANumber` if a value is NaN.
    """
    total = sum(segment.total_cost() for segment in segments)
    if budget >= total * (1 - _SLACK):
        return Cut(-math.inf, 0)
    low, high = _bracket(segments, budget / total)
    while True:
        above, values, costs = entries_between(segments, low, high)
        order = torch.sort(values, descending=True, stable=True).indices
        spent = above + costs[order].cumsum(0)
        limit = budget * (1 + _SLACK)
        if (low, high) != (-math.inf, math.inf) and (above > limit or not len(spent) or spent[-1] <= limit):
            # The threshold is outside the bracket. One more pass, since sums in another order can disagree on the side.
            low, high = -math.inf, math.inf
        else:
            selected = int(torch.searchsorted(spent, limit, right=True))
            if selected == 0:
                return Cut(high if high < math.inf else _largest(values), 0)
            threshold = values[order[selected - 1]]
            first = torch.searchsorted(-values[order], -threshold)
            return Cut(float(threshold), selected - int(first))


def hard_mask(segment: Segment, cut: Cut, ties_before: int) -> tuple[Tensor, int]:
    """Return the selected entries of a segment as a flat bool tensor, and the number of ties selected so far."""
    mask = torch.empty(segment.values.numel(), dtype=torch.bool, device=segment.values.device)
    buffer = ratio_buffer(segment)
    for part in segment.pieces():
        ratio = segment.ratio(part, buffer)
        torch.gt(ratio, cut.threshold, out=mask[part])
        if ties_before < cut.ties:
            equal = (ratio == cut.threshold).nonzero().flatten()[: cut.ties - ties_before]
            mask[part][equal] = True
            ties_before += len(equal)
    return mask, ties_before


def next_below(segments: Sequence[Segment], cut: Cut) -> float:
    """Return the ratio of the first entry that a cut does not select, or of the last one if it selects all."""
    largest, ties = -math.inf, 0
    for segment in segments:
        buffer = ratio_buffer(segment)
        for part in segment.pieces():
            ratio = segment.ratio(part, buffer)
            ties += int((ratio == cut.threshold).sum())
            below = ratio[ratio < cut.threshold]
            largest = max(largest, float(below.max())) if len(below) else largest
    return cut.threshold if ties > cut.ties or largest == -math.inf else largest


def subsample(segments: Sequence[Segment], entries: int) -> list[Segment]:
    """Return about `entries` evenly spaced entries."""
    step = max(1, sum(segment.values.numel() for segment in segments) // entries)
    sample = []
    for segment in segments:
        costs = segment.costs[::step].contiguous() if isinstance(segment.costs, Tensor) else segment.costs
        if segment.values.numel():
            sample.append(replace(segment, values=segment.values[::step].contiguous(), costs=costs))
    return sample


def ratio_buffer(segment: Segment) -> Tensor:
    """Allocate a buffer for the ratios of a piece, in the precision of the values, so that all passes agree exactly."""
    values = segment.values
    dtype = values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.empty(min(piece_size(values), values.numel()), dtype=dtype, device=values.device)


def _bracket(segments: Sequence[Segment], share: float) -> tuple[float, float]:
    """Return two values between which the threshold very likely lies; infinite if there are few entries."""
    entries = sum(segment.values.numel() for segment in segments)
    if entries <= _SORT_ALL:
        return -math.inf, math.inf
    _, values, costs = entries_between(subsample(segments, min(_SAMPLE, entries // 16)), -math.inf, math.inf)
    values, order = torch.sort(values, descending=True)
    spent = costs[order].cumsum(0)
    # Effective sample size: unequal costs make the estimate less certain than equal ones.
    effective = float(costs.sum() ** 2 / (costs**2).sum())
    margin = _BRACKET_SIGMAS * math.sqrt(max(share * (1 - share), 1 / effective) / effective)
    ends = torch.tensor([share + margin, share - margin], device=spent.device, dtype=spent.dtype) * spent[-1]
    low, high = torch.searchsorted(spent, ends).tolist()
    below = float(values[low]) if low < len(values) else -math.inf
    return below, float(values[high]) if ends[1] > 0 else math.inf


def entries_between(segments: Sequence[Segment], low: float, high: float) -> tuple[float, Tensor, Tensor]:
    """Return the total cost of entries above `high`, and ratios and costs (float64) of those in (low, high], in order.

    Raises `NotANumber` if a value is NaN.
    """
    above = 0.0
    ratios, costs = [], []
    for segment in segments:
        buffer = ratio_buffer(segment)
        for part in segment.pieces():
            ratio, cost = segment.ratio(part, buffer), segment.cost(part)
            if bool(ratio.min().isnan()):
                raise NotANumber("a score is not a number")
            is_above = ratio > low
            picked = _select(ratio, is_above)
            paid = _select(cost, is_above) if isinstance(cost, Tensor) else cost
            if high < math.inf:
                inside = picked <= high
                outside = ~inside
                if isinstance(paid, Tensor):
                    above += float(paid[outside].sum(dtype=torch.float64))
                    paid = paid[inside]
                else:
                    above += paid * float(outside.sum())
                picked = picked[inside]
            ratios.append(picked)
            costs.append(
                paid.double()
                if isinstance(paid, Tensor)
                else torch.full((len(picked),), paid, dtype=torch.float64, device=ratio.device)
            )
    return above, torch.cat(ratios), torch.cat(costs)


def _select(values: Tensor, mask: Tensor) -> Tensor:
    if values.device.type == "cpu":  # NumPy is several times faster
        return torch.from_numpy(values.numpy()[mask.numpy()])
    return values[mask]


def _largest(values: Tensor) -> float:
    """Return a threshold that no value exceeds."""
    return float(values.max()) if len(values) else math.inf

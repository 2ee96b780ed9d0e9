"""Hard top-k over several tensors under a budget: which entries of highest value / cost it pays for.

The same on every rank and device: ties go to the first, in the order of the tensors and within each in memory order.
One pass over all entries: a sample says between which two values the threshold must lie, the pass adds up what is above
and picks out what is between, and only that is ordered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from repro.sparsity.selection import NotANumber

_PIECE = {"cpu": 1 << 18}  # entries at once: a piece and its results stay in the cache
_SAMPLE = 1 << 18  # entries of a sample at most, and a sixteenth of all
_SORTED_WHOLE = 1 << 14  # so few are ordered without one
_SPREADS = 6.0  # standard deviations of the sample's quantile: one wrong guess costs another pass
_SLACK = 1e-9  # of the budget: costs that are no whole numbers add up to a little more or less


@dataclass(frozen=True)
class Segment:
    """Entries that compete: `values` flat; `costs` one number above 0 for all, or a flat tensor of the same length.

    With `is_signed` the values that count are the absolute ones, taken piece by piece without a copy. With `is_ratio`
    they have been divided by their costs already.
    """

    values: Tensor
    costs: Tensor | float = 1.0
    is_signed: bool = False
    is_ratio: bool = False

    def __post_init__(self) -> None:
        smallest = float(self.costs.min()) if isinstance(self.costs, Tensor) and self.costs.numel() else self.costs
        if not isinstance(smallest, Tensor) and not smallest > 0:
            raise ValueError(f"a cost of {smallest:g}: every cost must be above 0")

    def parts(self) -> Iterator[slice]:
        """The pieces in which the segment is read."""
        size, length = piece_size(self.values), self.values.numel()
        for begin in range(0, length, size):
            yield slice(begin, min(begin + size, length))

    def cost(self, part: slice) -> Tensor | float:
        """The costs of a piece."""
        return self.costs[part] if isinstance(self.costs, Tensor) else self.costs

    def total_cost(self) -> float:
        """What all entries cost."""
        if isinstance(self.costs, Tensor):
            return float(self.costs.sum(dtype=torch.float64))
        return self.costs * self.values.numel()

    def cost_of(self, chosen: Tensor) -> float:
        """What the entries of a flat bool tensor cost."""
        if isinstance(self.costs, Tensor):
            return float(self.costs[chosen].sum(dtype=torch.float64))
        return self.costs * float(chosen.sum())

    def ratio(self, part: slice, buffer: Tensor) -> Tensor:
        """value / cost of a piece, in `buffer` and its precision."""
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
    """Where a hard top-k cuts: entries above `threshold` are in, and the first `ties` of those that equal it."""

    threshold: float
    ties: int

    @property
    def numbers(self) -> tuple[float, float]:
        """Threshold and ties, to be told to other ranks."""
        return self.threshold, float(self.ties)

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> Cut:
        """Take back what `numbers` gave."""
        return cls(numbers[0], int(numbers[1]))


def piece_size(values: Tensor) -> int:
    """How many entries are taken at once: a GPU takes all."""
    return _PIECE.get(values.device.type, 1 << 27)


def cut(segments: Sequence[Segment], budget: float) -> Cut:
    """The cut that takes entries by falling value / cost until the next would cost more than is left of `budget`.

    Raises `NotANumber` where a value is NaN.
    """
    total = sum(segment.total_cost() for segment in segments)
    if budget >= total * (1 - _SLACK):
        return Cut(-math.inf, 0)
    low, high = _bracket(segments, budget / total)
    while True:
        above, values, costs = between(segments, low, high)
        order = torch.sort(values, descending=True, stable=True).indices
        spent = above + costs[order].cumsum(0)
        room = budget * (1 + _SLACK)
        if above > room and high < math.inf:
            low, high = high, math.inf
        elif (not len(spent) or spent[-1] <= room) and low > -math.inf:
            low, high = -math.inf, low
        else:
            taken = int(torch.searchsorted(spent, room, right=True))
            if taken == 0:
                return Cut(high if high < math.inf else _largest(values), 0)
            threshold = values[order[taken - 1]]
            first = torch.searchsorted(-values[order], -threshold)
            return Cut(float(threshold), taken - int(first))


def hard_mask(segment: Segment, where: Cut, ties_before: int) -> tuple[Tensor, int]:
    """The entries of a segment that are in, as a flat bool tensor, and how many of the ties are used up then."""
    chosen = torch.empty(segment.values.numel(), dtype=torch.bool, device=segment.values.device)
    buffer = own_buffer(segment)
    for part in segment.parts():
        ratio = segment.ratio(part, buffer)
        torch.gt(ratio, where.threshold, out=chosen[part])
        if ties_before < where.ties:
            equal = (ratio == where.threshold).nonzero().flatten()[: where.ties - ties_before]
            chosen[part][equal] = True
            ties_before += len(equal)
    return chosen, ties_before


def next_below(segments: Sequence[Segment], where: Cut) -> float:
    """The ratio of the first entry that a cut leaves out; that of the last one it takes where it takes all."""
    largest, ties = -math.inf, 0
    for segment in segments:
        buffer = own_buffer(segment)
        for part in segment.parts():
            ratio = segment.ratio(part, buffer)
            ties += int((ratio == where.threshold).sum())
            below = ratio[ratio < where.threshold]
            largest = max(largest, float(below.max())) if len(below) else largest
    return where.threshold if ties > where.ties or largest == -math.inf else largest


def sampled(segments: Sequence[Segment], entries: int) -> list[Segment]:
    """About `entries` of the entries, evenly from all."""
    step = max(1, sum(segment.values.numel() for segment in segments) // entries)
    few = []
    for segment in segments:
        costs = segment.costs[::step].contiguous() if isinstance(segment.costs, Tensor) else segment.costs
        if segment.values.numel():
            few.append(replace(segment, values=segment.values[::step].contiguous(), costs=costs))
    return few


def own_buffer(segment: Segment) -> Tensor:
    """Room for a piece's ratios in the values' own precision: the same numbers in every pass, whoever reads them."""
    values = segment.values
    dtype = values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.empty(min(piece_size(values), values.numel()), dtype=dtype, device=values.device)


def _bracket(segments: Sequence[Segment], share: float) -> tuple[float, float]:
    """Two values between which the threshold very likely lies; the whole line for few entries."""
    entries = sum(segment.values.numel() for segment in segments)
    if entries <= _SORTED_WHOLE:
        return -math.inf, math.inf
    _, values, costs = between(sampled(segments, min(_SAMPLE, entries // 16)), -math.inf, math.inf)
    values, order = torch.sort(values, descending=True)
    spent = costs[order].cumsum(0)
    # Unequal costs make the sample's share less sure than that of as many equal ones.
    effective = float(costs.sum() ** 2 / (costs**2).sum())
    spread = _SPREADS * math.sqrt(max(share * (1 - share), 1 / effective) / effective)
    ends = torch.tensor([share + spread, share - spread], device=spent.device, dtype=spent.dtype) * spent[-1]
    low, high = torch.searchsorted(spent, ends).tolist()
    below = float(values[low]) if low < len(values) else -math.inf
    return below, float(values[high]) if ends[1] > 0 else math.inf


def between(segments: Sequence[Segment], low: float, high: float) -> tuple[float, Tensor, Tensor]:
    """What entries above `high` cost in all; ratios and costs (float64) of those in (low, high], in order.

    Raises `NotANumber` where a value is NaN.
    """
    above = 0.0
    ratios, costs = [], []
    for segment in segments:
        buffer = own_buffer(segment)
        for part in segment.parts():
            ratio, cost = segment.ratio(part, buffer), segment.cost(part)
            if bool(ratio.min().isnan()):
                raise NotANumber("a score is not a number")
            over = ratio > low
            picked, paid = _picked(ratio, over), _picked(cost, over) if isinstance(cost, Tensor) else cost
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


def _picked(values: Tensor, chosen: Tensor) -> Tensor:
    if values.device.type == "cpu":  # numpy picks several times faster
        return torch.from_numpy(values.numpy()[chosen.numpy()])
    return values[chosen]


def _largest(values: Tensor) -> float:
    """A threshold that nothing is above."""
    return float(values.max()) if len(values) else math.inf

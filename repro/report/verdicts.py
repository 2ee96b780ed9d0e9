"""The verdict of one cell: does the measured value reproduce the published one?

The tolerance is fixed with the table, before any run: the metric's own, or 1.96 s/sqrt(n) over the seeds where that is
more, plus the uncertainty with which the published value is known.
"""

from __future__ import annotations

import math

from repro.rows import Metric, PublishedValue

REPRODUCED = "reproduced"
ABOVE = "above"
BELOW = "below"
RUNNING = "running"
FAILED = "failed"
MISSING = "missing"
NO_PUBLISHED_VALUE = "no published value"
OTHER_SCALE = "other scale"
NOT_MEASURED = "not measured"
UNDECIDED = "undecided"

DECIDING_SCALE = "paper"  # the only one at which a training says something about the published accuracy
_FLOAT_NOISE = 1e-9  # 80.2 - 80.0 is a little more than 0.2 in binary

# What a row without any finished run reads. All other states (planned, cancelled, interrupted, missing) are `missing`.
_UNFINISHED = {"running": RUNNING, "requeued": RUNNING, "submitted": RUNNING, "failed": FAILED}


def partial(n: int, of: int) -> str:
    """The words for n finished seeds of those asked for."""
    return f"partial ({n} of {of})"


def tolerance(published: PublishedValue, metric: Metric, n: int, std: float | None) -> float:
    """How far from the published value still counts as reproduced, in the metric's unit.

    `std` is the sample standard deviation over `n` seeds; None (one seed, or an exact count) leaves the metric's own.
    """
    spread = 0.0 if std is None or n < 1 else 1.96 * std / math.sqrt(n)
    return max(metric.tolerance, spread) + published.uncertainty


def judge(
    measured: float | None,
    published: PublishedValue | None,
    metric: Metric,
    *,
    n: int,
    std: float | None,
    state: str,
    scale: str,
    seeds: int,
    between: tuple[float, float] | None = None,
    off_device: str = "",
) -> str:
    """The verdict of one cell.

    Args:
        measured: mean over the finished seeds, or the exact count; None where there is none.
        published: what it is held against; None gives `no published value`.
        metric: says by `needs` what decides: `analysis` at every scale and whatever the state, `device` once there is
            a timing, `training` only when all seeds are finished at scale `paper`, `interpretation` only when all of
            those have been interpreted on the published values' images.
        n: finished seeds behind `measured`.
        std: sample standard deviation over them; None for fewer than two.
        state: of the row over its seeds; read only where no seed is finished.
        scale: the scale of the runs; another word than `paper` for runs that are not the published training.
        seeds: how many a verdict on an accuracy needs: those asked for, and never fewer than the table's own.
        between: ends of the interval in which a time lies; `undecided` where they have different verdicts.
        off_device: what a time was measured on, where that is no device of the published kind: `reproduced on CPU`.

    Raises `ValueError` for a cell that should have a measured value and has none: that is a bug in the caller.
    """
    if published is None:
        return NO_PUBLISHED_VALUE
    if metric.needs in ("device", "interpretation") and measured is None:
        return NOT_MEASURED
    if metric.needs in ("training", "interpretation"):
        if n == 0:
            return _UNFINISHED.get(state, MISSING)
        if scale != DECIDING_SCALE:
            return OTHER_SCALE
        if n < seeds:
            return partial(n, seeds)
    if measured is None:
        raise ValueError(f"{metric.name}: no measured value to hold against {published.value} (n={n}, state={state})")
    verdicts = {_held_against(value, published, metric, n, std) for value in (measured, *(between or ()))}
    if len(verdicts) > 1:
        return UNDECIDED
    return f"{verdicts.pop()} on {off_device}" if off_device else verdicts.pop()


def published_cells(published: PublishedValue, measured: float | None) -> dict[str, float | str]:
    """What the frame says of a published value: itself, its source, its kind, and how far off it is.

    Args:
        measured: None where there is nothing to hold against it: no value, or one of other images or another training.
    """
    name = published.metric
    cells: dict[str, float | str] = {
        f"{name}_published": published.value,
        f"{name}_source": published.source,
        f"{name}_kind": published.kind,
    }
    return cells if measured is None else cells | {f"{name}_delta": measured - published.value}


def _held_against(measured: float, published: PublishedValue, metric: Metric, n: int, std: float | None) -> str:
    difference = measured - published.value
    if metric.bound == "lower":
        return REPRODUCED if difference >= -(metric.tolerance + published.uncertainty) else BELOW
    if metric.bound:
        # A bound is kept or not: the spread over seeds makes it no wider.
        return REPRODUCED if difference < metric.tolerance + published.uncertainty else ABOVE
    if abs(difference) <= tolerance(published, metric, n, std) + _FLOAT_NOISE:
        return REPRODUCED
    return ABOVE if difference > 0 else BELOW

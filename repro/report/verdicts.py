"""Verdicts: whether a measured value reproduces the published one.

The rule is defined with the table, before any run. The tolerance is the metric's own, or 1.96 s/sqrt(n) over n seeds if
that is larger, plus the uncertainty of the published value.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from repro.tables.rows import Metric, PublishedValue

REPRODUCED = "reproduced"
ABOVE = "above"
BELOW = "below"
UNDECIDED = "undecided"
RUNNING = "running"
FAILED = "failed"
MISSING = "missing"
NOT_MEASURED = "not measured"
OTHER_SCALE = "other scale"
NO_PUBLISHED_VALUE = "no published value"
OTHER_DATA = "other data"  # of weights that others have trained
# Of claims.
HOLDS, DOES_NOT_HOLD, INCOMPLETE, NOT_RUN_AT_SCALE = "holds", "does not hold", "incomplete", "not run at this scale"
# Of published orderings.
AGREES, CONTRADICTS = "agrees", "contradicts"
# Of both.
NOT_RUN, PARTIAL = "not run", "partial"
DECIDABLE = ""  # the state of a value that can be compared with a published one

CONTRADICTED = (ABOVE, BELOW)
# A time on a CPU is evidence, but decides nothing about a time published for a GPU.
ON_CPU = {verdict: f"{verdict} on CPU" for verdict in (REPRODUCED, ABOVE, BELOW)}

_FLOAT_NOISE = 1e-9  # 80.2 - 80.0 is a little more than 0.2 in binary
# The verdict for a row without a finished run. Other states (planned, cancelled, interrupted) count as missing.
_UNFINISHED = {"running": RUNNING, "requeued": RUNNING, "submitted": RUNNING, "failed": FAILED}


def partial(n: int, wanted: int) -> str:
    """Return the state of a row with `n` finished seeds, of `wanted` that a verdict requires."""
    return f"{PARTIAL} ({n} of {wanted})"


def training_state(n: int, run_state: str, wanted: int, *, is_published_training: bool) -> str:
    """Return the state of a value that needs training: `DECIDABLE`, or the verdict in case it cannot be decided.

    The value is measured over `n` finished seeds, of `wanted` that a verdict requires. Without any, the state follows
    from the row's `run_state`.
    """
    if n == 0:
        return _UNFINISHED.get(run_state, MISSING)
    if not is_published_training:
        return OTHER_SCALE
    return DECIDABLE if n >= wanted else partial(n, wanted)


def tolerance(published: PublishedValue, metric: Metric, n: int = 1, std: float | None = None) -> float:
    """Return the largest difference that counts as reproduced, in the metric's unit.

    `std` is the sample standard deviation over `n` seeds. If it is None (one seed, a count, a time), the tolerance is
    the metric's own plus the uncertainty of the published value. The spread over seeds does not widen a bound.
    """
    spread = 0.0 if std is None or n < 1 or metric.bound else 1.96 * std / math.sqrt(n)
    return max(metric.tolerance, spread) + published.uncertainty


def judge(
    measured: float,
    published: PublishedValue,
    metric: Metric,
    *,
    n: int = 1,
    std: float | None = None,
    interval: Collection[float] = (),
) -> str:
    """Return `reproduced`, `above` or `below`; `undecided` if the ends of a time's `interval` give different verdicts.

    `measured` is a count, a time, or the mean over `n` seeds with sample standard deviation `std`.
    """
    verdicts = {_judge_value(value, published, metric, n, std) for value in (measured, *interval)}
    return verdicts.pop() if len(verdicts) == 1 else UNDECIDED


def _judge_value(measured: float, published: PublishedValue, metric: Metric, n: int, std: float | None) -> str:
    difference, allowed = measured - published.value, tolerance(published, metric, n, std)
    if metric.bound == "lower":
        return REPRODUCED if difference >= -allowed else BELOW
    if metric.bound:
        return REPRODUCED if difference < allowed else ABOVE
    if abs(difference) <= allowed + _FLOAT_NOISE:
        return REPRODUCED
    return ABOVE if difference > 0 else BELOW

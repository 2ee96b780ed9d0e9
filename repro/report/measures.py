"""What a report measures for each metric of a table: a count, a time, or an accuracy over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from repro.measure.cost import Cost
from repro.report.evidence import Evidence, row_state
from repro.report.statistics import Summary, median_interval, paired_differences, summarise
from repro.report.times import images_s


@dataclass(frozen=True)
class Measured:
    """A measured cell: mean, finished seeds behind it, sample standard deviation, and the state it waits for.

    `between`: of a time, where the median of its turns lies (95 %).
    """

    value: float | None
    n: int
    std: float | None
    state: str
    between: tuple[float, float] | None = None


def _gain(evidence: Evidence, reference: Evidence | None) -> Measured:
    if reference is None:
        return Measured(None, 0, None, "missing")
    pairs = paired_differences(evidence.values("top1_best_pct"), reference.values("top1_best_pct"))
    # A pair waits for whichever of its two runs is not done.
    states = [
        run.state if run.state != "done" else other.state
        for run, other in zip(evidence.runs.values(), reference.runs.values(), strict=True)
    ]
    return _over_seeds(summarise(pairs.values()), row_state(states))


def _drop(evidence: Evidence, reference: Evidence | None) -> Measured:
    gain = _gain(evidence, reference)
    return replace(gain, value=None if gain.value is None else -gain.value)


def _over_seeds(summary: Summary, state: str) -> Measured:
    return Measured(summary.mean, summary.n, summary.std, state)


def _counted(value: float, evidence: Evidence) -> Measured:
    return Measured(value, evidence.n_done, None, evidence.state)


def _median(turns: Sequence[float]) -> Measured:
    """The median of what was measured in turn, and how surely it is known."""
    if not turns:
        return Measured(None, 0, None, "done")
    return Measured(statistics.median(turns), len(turns), None, "done", median_interval(turns))


def _timed(evidence: Evidence) -> Measured:
    return _median(evidence.timing.savings_pct if evidence.timing else ())


def _times_as_fast(evidence: Evidence) -> Measured:
    """The median over the turns of the reference's time over the row's."""
    return _median([reference / row for reference, row in evidence.timing.pairs] if evidence.timing else ())


def _throughput(evidence: Evidence) -> Measured:
    return _median(images_s(evidence.timing) if evidence.timing else ())


# By the metric's name: from a row's cost, its evidence, and that of its reference (None where it has none).
MEASURES: Mapping[str, Callable[[Cost, Evidence, Evidence | None], Measured]] = {
    "params_m": lambda cost, evidence, _: _counted(cost.params_m, evidence),
    "macs_g": lambda cost, evidence, _: _counted(cost.macs_g, evidence),
    "flops_saving_pct": lambda cost, evidence, _: _counted(cost.flops_saving_pct, evidence),
    "flops_saving_alt_pct": lambda cost, evidence, _: _counted(cost.flops_saving_alt_pct, evidence),
    "time_saving_pct": lambda _, evidence, __: _timed(evidence),
    "speedup": lambda _, evidence, __: _times_as_fast(evidence),
    "speedup_max": lambda _, evidence, __: _times_as_fast(evidence),
    "throughput_img_s": lambda _, evidence, __: _throughput(evidence),
    "top1_pct": lambda _, evidence, __: _over_seeds(
        summarise(evidence.values("top1_best_pct").values()), evidence.state
    ),
    "top1_gain_pct": lambda _, evidence, reference: _gain(evidence, reference),
    "top1_drop_pct_max": lambda _, evidence, reference: _drop(evidence, reference),
}

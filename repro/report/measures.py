"""The measure of each metric: a count, a time, a trained accuracy, a gain, or the quality of a heat map.

A table metric consists of an entry in its `table.yaml` and an entry in `MEASURES`.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from repro.config.costs import has_masked_weights
from repro.report.binomial import gain_interval, n_test_images, wilson_interval
from repro.report.cells import COUNTED, TIMED, TRAINED, Measured, RowCells, RowContext
from repro.report.costs import applies_to, cost_note
from repro.report.evidence import Evidence, row_state
from repro.report.segmentation import SEGMENTATION
from repro.report.statistics import LEVEL, paired_differences
from repro.report.times import MASKED_DENSE, TIMED_OTHERWISE, images_s, is_timed_otherwise, why_not_timed
from repro.report.verdicts import DECIDABLE, MISSING, NOT_MEASURED, partial
from repro.runs.timing import Timing
from repro.tables.rows import Metric


class Measure(NamedTuple):
    """How a metric of a row is computed. `needs` is the value that `table.yaml` must give for the metric."""

    needs: str
    of: Callable[[RowContext, Metric | None], Measured]


def _count(name: str, depends_on_tokens: bool, context: RowContext, metric: Metric | None) -> Measured:
    """Return a field of `Cost`, counted from the config; a run may have to measure how many tokens are kept."""
    value: float = getattr(context.cost, name)
    note = cost_note(context)
    note = note if applies_to(note, name) else ""
    if not (depends_on_tokens and context.rests_on_data):
        return Measured(COUNTED, value, note=note)
    return Measured(
        TRAINED,
        value,
        state=context.training_state(context.evidence.n_done),
        why_missing=context.why_unfinished,
        is_published_training=context.is_published_training,
        is_comparable=context.is_published_training,
        note=note,
    )


def _time(turns_of: Callable[[Timing], Sequence[float]], context: RowContext, metric: Metric | None) -> Measured:
    """Return the median over turns, in each of which the row's model and its reference were timed."""
    evidence, timing = context.evidence, context.evidence.timing
    turns = turns_of(timing) if timing is not None else ()
    note = MASKED_DENSE if has_masked_weights(evidence.config.method) else ""
    why = why_not_timed(evidence)
    measured = Measured(TIMED, state=NOT_MEASURED, why_missing=why, is_comparable=False, note=note)
    if timing is not None and turns:
        sample = dict(enumerate(turns))
        measured = Measured(TIMED, statistics.median(turns), sample, setting=timing.setting, note=note)
    why_other = ""
    if is_timed_otherwise(timing, context):
        why_other = TIMED_OTHERWISE
    elif metric is not None and metric.device and timing is not None and metric.device not in timing.setting.device:
        why_other = f"timed on {timing.setting.device}; the published value is one of a {metric.device}"
    # Until the published training has measured how many tokens are kept, the timed model may be a different one.
    state = context.training_state(evidence.n_done) if context.rests_on_data else DECIDABLE
    if state:
        is_published = context.is_published_training
        return replace(
            measured,
            state=state,
            why_missing=context.why_unfinished,
            is_published_training=is_published,
            is_comparable=is_published and measured.is_comparable and not why_other,
        )
    if why_other:
        return replace(measured, state=NOT_MEASURED, why_missing=why_other, is_comparable=False)
    return measured


def _speedups(timing: Timing) -> list[float]:
    return [reference / row for reference, row in timing.pairs]


def _accuracy(key: str, context: RowContext, metric: Metric | None) -> Measured:
    """Return the mean of a value in result.json over finished seeds."""
    by_seed = context.evidence.values(key)
    without = context.evidence.n_done - len(by_seed)
    why = f"{context.evidence.row.id}: {without} result.json without {key}" if without else ""
    return _over_seeds(by_seed, context.training_state(len(by_seed)), why or context.why_unfinished, context)


def _gain_over_dense(sign: int, context: RowContext, metric: Metric | None) -> Measured:
    """Return the mean difference to the dense row over seeds, times `sign`."""
    reference = context.reference
    if reference is None or reference.row == context.evidence.row:
        return Measured(TRAINED, state=MISSING, why_missing=f"{context.evidence.row.id} has no row to compare it with")
    return gain(context, replace(context, evidence=reference), sign)


def _heat_map_quality(name: str, context: RowContext, metric: Metric | None) -> Measured:
    """Return the mean over seeds of a segmentation metric of heat maps, from interpretation.json."""
    found = context.segmentation
    assert metric is not None
    assert found is not None
    by_seed = found.values.get(name, {})
    if not by_seed:
        return Measured(TRAINED, state=NOT_MEASURED, why_missing=found.missing, is_comparable=False)
    context = replace(context, is_published_training=context.is_published_training and found.is_of(metric.dataset))
    why = f"{context.evidence.row.id}: {found.missing}" if found.missing else ""
    return _over_seeds(by_seed, context.training_state(len(by_seed)), why, context)


BEST_KEY, LAST_KEY = "top1_best_pct", "top1_last_pct"
BEST_METRIC = "top1_pct"
GAINS = {"top1_gain_pct": 1, "top1_drop_pct_max": -1}  # the sign with which a gain is counted
_COUNTS = {  # whether they depend on the number of kept tokens
    "params_m": False,
    "params_saving_pct": False,
    "macs_g": True,
    "flops_saving_pct": True,
    "flops_saving_alt_pct": True,
}
_TIMES = {
    "time_saving_pct": lambda timing: timing.savings_pct,
    "speedup": _speedups,
    "speedup_max": _speedups,
    "throughput_img_s": images_s,
}
_ACCURACIES = {BEST_METRIC: BEST_KEY, "top1_last_pct": LAST_KEY, "top5_last_pct": "top5_last_pct"}
MEASURES: dict[str, Measure] = {
    **{name: Measure("analysis", functools.partial(_count, name, depends)) for name, depends in _COUNTS.items()},
    **{name: Measure("device", functools.partial(_time, turns_of)) for name, turns_of in _TIMES.items()},
    **{name: Measure("training", functools.partial(_accuracy, key)) for name, key in _ACCURACIES.items()},
    **{name: Measure("training", functools.partial(_gain_over_dense, sign)) for name, sign in GAINS.items()},
    **{name: Measure("interpretation", functools.partial(_heat_map_quality, name)) for name in SEGMENTATION},
}


def gain(first: RowContext, second: RowContext, sign: int = 1) -> Measured:
    """Return the mean gain of the first row over the second at the best epoch, in percentage points, times `sign`.

    Differences are paired by seed, over the seeds that both rows have finished.
    """
    pairs = paired_differences(first.evidence.values(BEST_KEY), second.evidence.values(BEST_KEY))
    pairs = {seed: sign * pair for seed, pair in pairs.items()}
    # The state of a pair is that of the run that is not finished.
    states = [
        run.state if run.state != "done" else other.state
        for run, other in zip(first.evidence.runs.values(), second.evidence.runs.values(), strict=True)
    ]
    why = "; ".join(filter(None, (first.why_unfinished, second.why_unfinished)))
    context = replace(first, is_published_training=first.is_published_training and second.is_published_training)
    state = context.training_state(len(pairs), row_state(states))
    if not pairs and first.evidence.n_done and second.evidence.n_done and context.is_published_training:
        state = partial(0, context.wanted_seeds)
    return _over_seeds(pairs, state, why, context, is_gain=True)


def _over_seeds(
    by_seed: Mapping[int, float], state: str, why: str, context: RowContext, *, is_gain: bool = False
) -> Measured:
    return Measured(
        TRAINED,
        statistics.fmean(by_seed.values()) if by_seed else None,
        by_seed,
        state,
        why,
        is_published_training=context.is_published_training,
        is_comparable=context.is_published_training,
        is_paired=is_gain,
        limits=(-100.0 if is_gain else 0.0, 100.0),
    )


def interval_of_gain(first: Evidence, second: Evidence | None, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the interval of a gain over seeds or test images, whichever is wider; None if there is neither."""
    if second is None:
        return None
    images = n_test_images(first.config.data)
    return gain_interval(first.values(BEST_KEY), second.values(BEST_KEY), images, level)


def test_image_interval(row: RowCells) -> tuple[float, float] | None:
    """Return the 95 % interval of a row's best accuracy for the sampling error of its test images; None without runs.

    All seeds share the test images, so more seeds do not make it narrower.
    """
    measured, images = row.measured["top1_pct"], n_test_images(row.evidence.config.data)
    if not measured.sample or measured.value is None or images is None:
        return None
    return wilson_interval(measured.value, images)

"""One frame from all records: a line per row, never fewer. Every table and figure is drawn from it and nothing else."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from repro.errors import UserError, did_you_mean
from repro.launch.plan import without_method
from repro.measure.cost import Cost, rests_on_data, row_cost
from repro.report.evidence import Evidence, read_evidence, row_state
from repro.report.seeds import BY_SEED, SEED_COLUMNS, seed_values
from repro.report.segmentation import INTERPRETATION, SEGMENTATION, segmentation_columns, segmentation_line
from repro.report.sharing import processors, share
from repro.report.statistics import Summary, median_interval, paired_differences, summarise
from repro.report.verdicts import DECIDING_SCALE, NO_PUBLISHED_VALUE, OTHER_SCALE, judge
from repro.rows import Row, Table
from repro.runs.timing import Timing
from repro.sparsity.budgets import NEURON

ROW_COLUMNS = ("table", "row", "backbone", "method", "arch_sparsity_pct", "data_sparsity_pct", "scale", "n_seeds")
MEASURED_COLUMNS = (
    "params_m",
    "macs_g",
    "flops_saving_pct",
    "flops_saving_alt_pct",
    "time_saving_pct",
    "top1_last_pct",
    "top1_best_pct",
    "top1_std_pct",
)
STATE_COLUMNS = ("state", "reason")
LOCAL_COLUMNS = ("local_top1_last_pct", "local_top1_best_pct", "local_top1_std_pct", "local_data")
LOCAL_SEED_COLUMNS = tuple(f"local_{name}" for name in SEED_COLUMNS)
ORIGIN_COLUMNS = ("n_records", "commits", "cost_note", "time_note")
# The saving, and images a second, of each turn, as text: what an interval of any level is made from.
BY_TURN, IMAGES_BY_TURN = "time_by_turn_pct", "img_s_by_turn"
# Between which ends the median of the turns lies (95 %; empty where they are too few), after how many, and on what:
# `CPU` or `GPU`, then in full.
TIME_COLUMNS = (
    *("time_low_pct", "time_high_pct", "time_turns", BY_TURN, IMAGES_BY_TURN),
    *("time_on", "time_device", "time_setting"),
)

MASKED_DENSE = "masked-dense weights: no speed-up"
NOT_TIMED = "not measured"
_MACS_ESTIMATED = "so MACs and FLOPs saving are estimates (Params are exact)"
KEPT_AS_PLANNED = f"tokens left are those of the plan: no run has measured any, {_MACS_ESTIMATED}"
KEPT_ELSEWHERE = (
    f"tokens left are those measured on other data than the table's, or at another scale, {_MACS_ESTIMATED}"
)
SPLIT_BY_TRAINING = f"layer densities are decided by training; counted as uniform, {_MACS_ESTIMATED}"
PARAMS_BY_TRAINING = (
    "layer densities are decided by training; counted as uniform, so Params are an estimate (MACs are exact)"
)

TIMED_OTHERWISE = "timed with other keep rates than its runs have measured: repro bench time measures it again"
_SAME_MACS_PCT = 1.0  # points of the MACs saving by which a timed model may differ from what the runs kept

# Measured columns that a table has where it has the metric.
_BY_METRIC = ("speedup", "speedup_max", "throughput_img_s")
# What is counted from the tokens that are left.
BY_TOKENS = ("macs_g", "flops_saving_pct", "flops_saving_alt_pct")
_WHOLE = ("n_seeds", "n_records")
_TEXT = (
    *("table", "row", "backbone", "method", "scale", "local_data", "commits", "cost_note", "time_note"),
    *("run_of", "heat_map", "heat_map_data", "heat_map_missing"),
)
_TEXT_ENDS = (
    *("_source", "_kind", "_verdict", "time_on", "time_device", "time_setting"),
    *(BY_SEED, "_by_seed", "_by_turn", BY_TURN),
)


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


def columns(table: Table) -> list[str]:
    """The frame's columns, in order."""
    cells = [
        f"{metric}_{part}" for metric in table.metrics for part in ("published", "source", "kind", "delta", "verdict")
    ]
    seeds = (*SEED_COLUMNS, *LOCAL_SEED_COLUMNS)
    by_seed = (BY_SEED, f"local_{BY_SEED}")
    beside = (*STATE_COLUMNS, *LOCAL_COLUMNS, *ORIGIN_COLUMNS, *TIME_COLUMNS)
    own = [name for name in _BY_METRIC if name in table.metrics]
    return [
        *ROW_COLUMNS,
        *MEASURED_COLUMNS,
        *own,
        *cells,
        *beside,
        *seeds,
        *by_seed,
        *segmentation_columns(table),
    ]


def collect(
    table: Table,
    rows: Sequence[Row],
    scale: str,
    seeds: Sequence[int],
    root: Path,
    overrides: Sequence[str] = (),
    *,
    now: float | None = None,
) -> pd.DataFrame:
    """The frame of `rows`, in their order, from the records below `root`.

    Accuracies are means over the finished seeds, in percent; `top1_std_pct` is the sample standard deviation of the
    best epoch's, which is the one that verdicts use. They stand in `top1_*` only where the runs are the published
    training (scale `paper`, the table's data set) and in `local_*` otherwise, never in both.

    Args:
        overrides: Hydra overrides that the runs were launched with.
        now: Unix seconds against which heartbeats are read; the clock's by default.

    Raises `UserError` for no seeds, a wrong override, a metric that nothing measures, or a damaged record.
    """
    return gather(table, rows, scale, seeds, root, overrides, now=now)[0]


def gather(
    table: Table,
    rows: Sequence[Row],
    scale: str,
    seeds: Sequence[int],
    root: Path,
    overrides: Sequence[str] = (),
    *,
    now: float | None = None,
) -> tuple[pd.DataFrame, list[Evidence]]:
    """The frame of `collect` and the evidence behind each of its lines, in the same order."""
    distinct = tuple(dict.fromkeys(seeds))
    if not distinct:
        raise UserError(f"{table.name}: no seeds to report; give at least one (SEEDS=1)")
    for name, metric in table.metrics.items():
        valid = SEGMENTATION if metric.needs == INTERPRETATION else _MEASURES
        if name not in valid:
            raise UserError(f"{table.name}/table.yaml: nothing measures {name!r}{did_you_mean(name, valid)}")
    moment = time.time() if now is None else now
    references = {row.id: table.reference(row.backbone) for row in rows}
    unasked = {row.id: row for row in references.values() if row is not None and row not in rows}
    wanted = [*rows, *unasked.values()]

    def read(part: Sequence[Row]) -> list[Evidence]:
        # A reference that was not asked for has a method of its own: options of another's mean nothing to it.
        own = {row.id: without_method(overrides) if row.id in unasked else overrides for row in part}
        return [read_evidence(table.name, row, scale, distinct, root, own[row.id], moment) for row in part]

    # Neighbours together: rows of one backbone share most of what composing their configs costs.
    size = max(1, math.ceil(len(wanted) / processors()))
    parts = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    known = {one.row.id: one for part in share([functools.partial(read, part) for part in parts]) for one in part}
    lines = []
    for row in rows:
        reference = references[row.id]
        lines.append(_line(table, scale, known[row.id], known[reference.id] if reference else None))
    return _typed(pd.DataFrame(lines, columns=columns(table))), [known[row.id] for row in rows]


def _line(table: Table, scale: str, evidence: Evidence, reference: Evidence | None) -> dict[str, Any]:
    row, config = evidence.row, evidence.config
    is_published_data = config.data.name == table.dataset_of(row.id)
    is_published_training = scale == DECIDING_SCALE and evidence.is_as_published and is_published_data
    # Who asks for fewer seeds than the table has does not get a verdict for fewer.
    wanted_seeds = max(len(evidence.runs), table.default_seeds(scale))
    line: dict[str, Any] = {
        "table": table.name,
        "row": row.id,
        "backbone": row.backbone,
        "method": row.method,
        "arch_sparsity_pct": row.arch_sparsity_pct,
        "data_sparsity_pct": row.data_sparsity_pct,
        "scale": scale,
        "n_seeds": evidence.n_done,
        "state": evidence.state,
        "reason": evidence.reason,
        "n_records": evidence.n_records,
        "commits": " ".join(evidence.commits),
        **{f"{name}_verdict": NO_PUBLISHED_VALUE for name in table.metrics},
    }
    if row.run_of:  # cost, time and accuracy stand in the line of the row that it reads
        return line | segmentation_line(table, scale if is_published_training else OTHER_SCALE, evidence, wanted_seeds)
    cost = row_cost(config, [run.result for run in evidence.runs.values() if run.result is not None])
    timing = evidence.timing
    line |= {
        "params_m": cost.params_m,
        "macs_g": cost.macs_g,
        "flops_saving_pct": cost.flops_saving_pct,
        "flops_saving_alt_pct": cost.flops_saving_alt_pct,
        "time_saving_pct": timing.time_saving_pct if timing else None,
        "cost_note": _cost_note(cost, evidence, is_published_training),
        "time_note": _time_note(cost, evidence, is_published_training),
        "local_data": "" if is_published_training else config.data.name,
    }
    if timing is not None:
        low, high = median_interval(timing.savings_pct)
        line |= {
            "time_low_pct": low if math.isfinite(low) else None,
            "time_high_pct": high if math.isfinite(high) else None,
            "time_turns": len(timing.pairs),
            BY_TURN: _by_turn(timing.savings_pct),
            IMAGES_BY_TURN: _by_turn(_images_s(timing)),
            "time_on": "CPU" if timing.setting.threads else "GPU",
            "time_device": timing.setting.device,
            "time_setting": timing.setting.text,
        }
        line |= {name: _MEASURES[name](cost, evidence, reference).value for name in _BY_METRIC if name in table.metrics}
    line |= seed_values(evidence, reference, "" if is_published_training else "local_")
    is_trained = is_published_training and evidence.n_done >= wanted_seeds
    for asked in table.metrics.values():
        if asked.needs == INTERPRETATION:
            continue
        # What rests on what a run has measured of its data, a count or a time, is decided once an accuracy is.
        waits = asked.name in BY_TOKENS or (asked.needs == "device" and not is_trained)
        metric = replace(asked, needs="training") if waits and rests_on_data(config.method) else asked
        published = row.best_published(metric.name)
        measured = _MEASURES[metric.name](cost, evidence, reference)
        if metric.needs == "training" and asked.needs == "device":
            measured = replace(measured, n=evidence.n_done, state=evidence.state)
        if asked.needs == "device" and _is_timed_otherwise(cost, evidence):
            measured = replace(measured, value=None)
        if metric.device and (timing is None or metric.device not in timing.setting.device):
            measured = replace(measured, value=None)
        line[f"{metric.name}_verdict"] = judge(
            measured.value,
            published,
            metric,
            n=measured.n,
            std=measured.std,
            state=measured.state,
            scale=scale if is_published_training else OTHER_SCALE,
            seeds=wanted_seeds,
            between=measured.between,
            off_device="CPU" if metric.needs == "device" and line.get("time_on") == "CPU" else "",
        )
        if published is None:
            continue
        line[f"{metric.name}_published"] = published.value
        line[f"{metric.name}_source"] = published.source
        line[f"{metric.name}_kind"] = published.kind
        if measured.value is not None and (metric.needs != "training" or is_published_training):
            line[f"{metric.name}_delta"] = measured.value - published.value
    return line


def _cost_note(cost: Cost, evidence: Evidence, is_published_training: bool) -> str:
    """Why a row's MACs are not an exact count of the published model; empty where they are."""
    if cost.is_measured:
        return "" if is_published_training else KEPT_ELSEWHERE
    if rests_on_data(evidence.config.method):
        return KEPT_AS_PLANNED
    if not cost.are_params_exact:
        return PARAMS_BY_TRAINING
    return "" if cost.is_exact else SPLIT_BY_TRAINING


def _is_timed_otherwise(cost: Cost, evidence: Evidence) -> bool:
    """Whether the timed model keeps other shares of its tokens than the runs have measured, or they have not."""
    if evidence.timing is None or not rests_on_data(evidence.config.method):
        return False
    return not cost.is_measured or abs(evidence.timing.macs_saving_pct - cost.flops_saving_pct) > _SAME_MACS_PCT


def _time_note(cost: Cost, evidence: Evidence, is_published_training: bool) -> str:
    """How a row's time was measured, or why it has none: masked-dense weights run as long as dense ones."""
    method, timing = evidence.config.method, evidence.timing
    if method.weights is None and method.tokens is None:
        return "reference"
    weights = method.weights
    if timing is None and weights is not None and weights.block == NEURON:
        return f"{NOT_TIMED}; training decides which heads and neurons leave: repro export times the finished model"
    is_masked = weights is not None and weights.distribution is not None
    if timing is None:
        if is_masked:
            return MASKED_DENSE if method.tokens is None else f"{NOT_TIMED}; {MASKED_DENSE}"
        return NOT_TIMED
    low, high = timing.range_pct
    words = (
        f"{timing.faster_by}; forward pass in evaluation mode, fresh weights; "
        f"median of {len(timing.pairs)} turns with {timing.reference}, quartiles {low:.1f} to "
        f"{high:.1f} %; {timing.macs_saving_pct:.1f} % fewer MACs as timed; {timing.setting.text}"
    )
    for beside in evidence.timings_beside:
        is_alike = beside.setting == replace(timing.setting, batch=beside.setting.batch)
        where = f"batch {beside.setting.batch}" if is_alike else beside.setting.text
        words += f"; {beside.time_saving_pct:.1f} % at {where}"
    if is_published_training and _is_timed_otherwise(cost, evidence):
        words = f"{words}; {TIMED_OTHERWISE}"
    return f"{words}; {MASKED_DENSE}" if is_masked else words


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
    """Images a second in inference, on a GPU: an absolute time means nothing on a CPU that others use."""
    return _median(_images_s(evidence.timing) if evidence.timing else ())


def _images_s(timing: Timing) -> list[float]:
    """Images a second of the row's model, turn by turn; none on a CPU."""
    return [] if timing.setting.threads else [timing.setting.batch / seconds for _, seconds in timing.pairs]


def _by_turn(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def read_by_turn(text: str) -> list[float]:
    """The values of a `..._by_turn...` column."""
    return [float(word) for word in text.split()]


_MEASURES: Mapping[str, Callable[[Cost, Evidence, Evidence | None], Measured]] = {
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


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """One type a column whatever is in it: text without gaps, whole counts, and numbers that may be absent."""
    for name in frame.columns:
        if name in _TEXT or name in STATE_COLUMNS or name.endswith(_TEXT_ENDS):
            frame[name] = frame[name].astype("object").fillna("").astype("str")
        else:
            frame[name] = frame[name].astype("int64" if name in _WHOLE else "float64")
    return frame

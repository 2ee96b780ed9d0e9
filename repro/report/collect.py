"""One frame from all records: a line per row, never fewer. Every table and figure is drawn from it and nothing else."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.errors import UserError, did_you_mean
from repro.launch.plan import without_method
from repro.measure.cost import rests_on_data, row_cost
from repro.report.columns import BY_METRIC, columns, typed
from repro.report.costs import BY_TOKENS, cost_note
from repro.report.evidence import Evidence, read_evidence
from repro.report.measures import MEASURES
from repro.report.seeds import seed_values
from repro.report.segmentation import INTERPRETATION, SEGMENTATION, segmentation_line
from repro.report.sharing import processors, share
from repro.report.times import is_timed_otherwise, time_note, time_values
from repro.report.verdicts import DECIDING_SCALE, NO_PUBLISHED_VALUE, OTHER_SCALE, judge, published_cells
from repro.rows import Row, Table

if TYPE_CHECKING:
    import pandas as pd


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
    beside: Sequence[Row] = (),
    meanwhile: Callable[[], object] | None = None,
) -> tuple[pd.DataFrame, list[Evidence]]:
    """The frame of `collect` and the evidence behind each of its lines, in the same order.

    Args:
        beside: rows that were not asked for, whose lines come last: those that claims name.
        meanwhile: what this process does while others begin to read.
    """
    distinct = tuple(dict.fromkeys(seeds))
    if not distinct:
        raise UserError(f"{table.name}: no seeds to report; give at least one (SEEDS=1)")
    for name, metric in table.metrics.items():
        valid = SEGMENTATION if metric.needs == INTERPRETATION else MEASURES
        if name not in valid:
            raise UserError(f"{table.name}/table.yaml: nothing measures {name!r}{did_you_mean(name, valid)}")
    moment = time.time() if now is None else now
    lined = [*rows, *beside]
    references = {row.id: table.reference(row.backbone) for row in lined}
    unasked = {row.id: row for row in (*beside, *references.values()) if row is not None and row not in rows}
    wanted = [*rows, *unasked.values()]

    def read(part: Sequence[Row]) -> list[Evidence]:
        # A row that was not asked for has a method of its own: options of another's mean nothing to it.
        own = {row.id: without_method(overrides) if row.id in unasked else overrides for row in part}
        return [read_evidence(table.name, row, scale, distinct, root, own[row.id], moment) for row in part]

    found = share([functools.partial(read, part) for part in _parts(wanted)], meanwhile)
    known = {one.row.id: one for part in found for one in part}
    import pandas as pd  # longer than it takes to begin reading: others do so meanwhile

    lines = []
    for row in lined:
        reference = references[row.id]
        lines.append(_line(table, scale, known[row.id], known[reference.id] if reference else None))
    return typed(pd.DataFrame(lines, columns=columns(table))), [known[row.id] for row in lined]


def _parts(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in parts for several processes: those of one backbone together, which share most of what composing their
    configs costs, as far as there is work for all."""
    most = max(1, math.ceil(len(rows) / processors()))
    parts = []
    for _, same in itertools.groupby(sorted(rows, key=lambda row: row.backbone), lambda row: row.backbone):
        alike = list(same)
        parts += [alike[start : start + most] for start in range(0, len(alike), most)]
    return parts


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
        "cost_note": cost_note(cost, evidence, is_published_training=is_published_training, wanted_seeds=wanted_seeds),
        "time_note": time_note(cost, evidence, is_published_training=is_published_training),
        "local_data": "" if is_published_training else config.data.name,
        **time_values(timing),
    }
    if timing is not None:
        line |= {name: MEASURES[name](cost, evidence, reference).value for name in BY_METRIC if name in table.metrics}
    line |= seed_values(evidence, reference, "" if is_published_training else "local_")
    is_trained = is_published_training and evidence.n_done >= wanted_seeds
    for asked in table.metrics.values():
        if asked.needs == INTERPRETATION:
            continue
        # What rests on what a run has measured of its data, a count or a time, is decided once an accuracy is.
        waits = asked.name in BY_TOKENS or (asked.needs == "device" and not is_trained)
        metric = replace(asked, needs="training") if waits and rests_on_data(config.method) else asked
        published = row.best_published(metric.name)
        measured = MEASURES[metric.name](cost, evidence, reference)
        if metric.needs == "training" and asked.needs == "device":
            measured = replace(measured, n=evidence.n_done, state=evidence.state)
        if asked.needs == "device" and is_timed_otherwise(timing, cost, evidence):
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
        if published is not None:
            is_comparable = metric.needs != "training" or is_published_training
            line |= published_cells(published, measured.value if is_comparable else None)
    return line

"""The cost of each rung of the ladder of evidence (docs/evidence.md) for a selection of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from repro.config import Config
from repro.config.data_roots import NO_FOLDER
from repro.launch.cost_estimate import TRAINING_OVER_INFERENCE, counted_throughput, estimates
from repro.launch.plan import PlannedRun, plan
from repro.launch.print_plan import rounded
from repro.launch.text_table import duration, text_table
from repro.runs.adopted import read_adopted
from repro.tables.rows import Row, Table
from repro.tables.rungs import COUNTED, LOCAL, MINI, PAPER, RUNGS, WEIGHTS
from repro.timing.rate import Throughput

EVALUATION_IMAGES = 50_000  # ImageNet's validation set, the largest of the published data sets
_HEADERS = ("rung", "runs", "done", "GPU-hours", "time on one GPU", "what it takes")
_RIGHT = ("runs", "done", "GPU-hours", "time on one GPU")


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder."""

    name: str
    runs: int  # the number of rows on the rungs `counted` and `weights`
    done: int
    device_hours: float | None = 0.0  # cost of the runs that are not done; None if none of their costs is known
    unknown: int = 0  # number of runs whose cost is unknown
    known_from: tuple[str, ...] = ()  # sources of the hours, or why they are unknown


def ladder(
    table: Table,
    patterns: Sequence[str],
    seed_count: int | None,
    root: Path,
    throughput_of: Callable[[Config], Throughput | None],
) -> list[Rung]:
    """Return all rungs in order, for the rows that `patterns` select and that are run at the rung's scale.

    `seed_count` is the number of seeds; None for the table's default at each scale.
    """
    rows = table.select(patterns)
    chosen = {row.id for row in rows}

    def at_scale(scale: str) -> Rung:
        own = [row for row in table.every_row if row.id in chosen and row.is_run_at(scale)]
        seeds = range(seed_count or table.default_seeds(scale))
        return _trained(scale, plan(table, own, scale, seeds, root, [NO_FOLDER]), throughput_of)

    counted = Rung(COUNTED, len(rows), len(rows))
    return [counted, at_scale(LOCAL), at_scale(MINI), _weights(table, rows, root), at_scale(PAPER)]


def _trained(scale: str, runs: Sequence[PlannedRun], throughput_of: Callable[[Config], Throughput | None]) -> Rung:
    costs = [cost for run, cost in zip(runs, estimates(runs, throughput_of, None), strict=True) if not run.is_done]
    known = [cost.device_hours for cost in costs if cost.device_hours is not None]
    hours = sum(known) if known or not costs else None
    sources = tuple(dict.fromkeys(cost.known_from for cost in costs))
    return Rung(scale, len(runs), len(runs) - len(costs), hours, len(costs) - len(known), sources)


def _weights(table: Table, rows: Sequence[Row], root: Path) -> Rung:
    """Return the rung that evaluates one weights file per row; its cost is estimated from counted MACs."""
    own = {row.id for row in map(table.source_row, rows)}
    runs = [run for run in plan(table, rows, "paper", [0], root, [NO_FOLDER]) if run.row.id in own]
    rates = [counted_throughput(run.config) for run in runs if not _has_weights(table, run.row, root)]
    seconds = sum(EVALUATION_IMAGES / (rate.images_per_s * TRAINING_OVER_INFERENCE) for rate in rates)
    sources = tuple(dict.fromkeys(rate.known_from for rate in rates))
    return Rung(WEIGHTS, len(runs), len(runs) - len(rates), seconds / 3600, 0, sources)


def _has_weights(table: Table, row: Row, root: Path) -> bool:
    return any(one.are_comparable_on(table.dataset_of(row.id)) for one in read_adopted(root, table.name, row.id))


def print_ladder(rungs: Sequence[Rung], console: Console) -> None:
    """Print a line for each rung, then the sources of the hours."""
    console.print(text_table(_HEADERS, [_line(rung) for rung in rungs], _RIGHT))
    console.print(
        "without data loading, unless estimated from finished runs; docs/evidence.md explains what each rung shows",
        soft_wrap=True,
    )
    by_source: dict[str, list[str]] = {}
    for rung in rungs:
        for source in rung.known_from:
            by_source.setdefault(source, []).append(rung.name)
    for source, names in by_source.items():
        console.print(f"{', '.join(names)}: {source}", soft_wrap=True)


def _line(rung: Rung) -> list[str]:
    hours, time, takes = "unknown", "", RUNGS[rung.name]
    if not rung.runs:
        hours, takes = "", "none of these rows is run at this scale"
    elif rung.device_hours is not None:
        hours = ("at least " if rung.unknown else "") + rounded(rung.device_hours)
        time = duration(3600 * rung.device_hours)
    return [rung.name, str(rung.runs), str(rung.done), hours, time, takes]

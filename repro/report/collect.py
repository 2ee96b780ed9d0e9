"""Compute the cells of a table from the records on disk: one row of cells for each row of the report, never fewer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from repro.config.costs import row_cost
from repro.config.overrides import without_method
from repro.config.published_training import is_published_training
from repro.errors import UserError, did_you_mean
from repro.report.cells import Cell, Results, RowCells, RowContext
from repro.report.evidence import Evidence, read_evidence
from repro.report.ladder import highest_rung
from repro.report.measures import MEASURES
from repro.report.segmentation import is_segmentation, segmentation_of
from repro.tables.rows import Row, Table

# Measured for every row with runs of its own, even if the table does not have these metrics.
_ALWAYS = ("top1_pct", "top1_last_pct", "top1_gain_pct")


def collect_results(
    table: Table,
    rows: Sequence[Row],
    scale: str,
    seeds: Sequence[int],
    root: Path,
    overrides: Sequence[str] = (),
    *,
    others: Sequence[Row] = (),
) -> Results:
    """Return the cells of `rows`, in the same order, from the records under `root`.

    Args:
        overrides: Hydra overrides that the runs were launched with.
        others: rows that were not requested but that claims, findings or orderings name.

    Raises `UserError` for no seeds, an invalid override, a metric without a measure, or a damaged record.
    """
    distinct = tuple(dict.fromkeys(seeds))
    if not distinct:
        raise UserError(f"{table.name}: no seeds to report; give at least one (SEEDS=1)")
    _check_metrics(table)
    references = {row.id: table.reference(row.backbone) for row in (*rows, *others)}
    now = time.time()
    chosen = {row.id for row in rows}
    evidence: dict[str, Evidence] = {}
    for row in (*rows, *others, *filter(None, references.values())):
        if row.id not in evidence:
            # Other rows use methods of their own, to which method overrides may not apply.
            own = overrides if row.id in chosen else without_method(overrides)
            evidence[row.id] = read_evidence(table.name, row, scale, distinct, root, own, now)

    def cells(row: Row) -> RowCells:
        reference = references[row.id]
        return row_cells(table, scale, evidence[row.id], evidence[reference.id] if reference else None, root)

    return Results(table, scale, [cells(row) for row in rows], overrides, [cells(row) for row in others])


def _check_metrics(table: Table) -> None:
    for name, metric in table.metrics.items():
        valid = [measured for measured, measure in MEASURES.items() if measure.needs == metric.needs]
        if name not in valid:
            raise UserError(f"{table.name}/table.yaml: nothing measures {name!r}{did_you_mean(name, valid)}")


def row_cells(table: Table, scale: str, evidence: Evidence, reference: Evidence | None, root: Path) -> RowCells:
    """Compute every value of one row. `reference` is the evidence of the dense row."""
    row = evidence.row
    datasets = [metric.dataset for metric in table.metrics.values() if is_segmentation(metric)]
    context = RowContext(
        evidence,
        reference,
        row_cost(evidence.config, [run.result for run in evidence.runs.values() if run.result is not None]),
        is_published_training(table, row, evidence.config),
        # Requesting fewer seeds than the table's default does not lower the number that a verdict requires.
        max(len(evidence.runs), table.default_seeds(scale)),
        segmentation_of(evidence, datasets[0]) if row.reads_runs_of and datasets else None,
        highest_rung(table, evidence, root),
    )
    names = [name for name, metric in table.metrics.items() if is_segmentation(metric) == bool(row.reads_runs_of)]
    always = () if row.reads_runs_of else _ALWAYS
    measured = {name: MEASURES[name].of(context, table.metrics.get(name)) for name in dict.fromkeys((*names, *always))}
    cells = {name: Cell(row, table.metrics[name], measured[name]) for name in names}
    return RowCells(context, measured, cells)

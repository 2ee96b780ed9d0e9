"""The columns of a report: its cells, rendered for the compact and the wide view.

The compact view has one column per metric, with measured value, published value, and the verdict as a symbol. The wide
view has a separate column for each of these, and columns that the compact view omits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from repro.report.adopted import TITLE as WEIGHTS_TITLE
from repro.report.adopted import describe as describe_weights
from repro.report.adopted import tone_of as weights_tone
from repro.report.adopted import weights_verdict, with_symbol
from repro.report.cells import TIMED, TRAINED, VERBS, Cell, Measured, Results, RowCells
from repro.report.format import (
    ESTIMATED_MARK,
    MASKED_MARK,
    NOTHING,
    delta,
    delta_unit,
    describe,
    describe_conflict,
    measured_number,
    published_mark,
    published_number,
    tone,
    with_spread,
)
from repro.report.grid import Column, Entry, Grid, Section
from repro.report.local_data import heat_map_label, local_label
from repro.report.measures import GAINS, test_image_interval
from repro.report.segmentation import is_segmentation
from repro.report.statistics import interval_words
from repro.report.verdicts import CONTRADICTED, FAILED
from repro.tables.rows import Metric, Row, Table
from repro.tables.rungs import COUNTED as COUNTED_RUNG


def grids(results: Results, *, is_wide: bool) -> tuple[Grid, ...]:
    """Render the rows of a report in order: first rows with runs, then rows that read heat maps of other rows' runs."""
    found = []
    for head, of_heat_maps in (("Row", False), ("Heat map", True)):
        rows = [row for row in results.rows if bool(row.row.reads_runs_of) == of_heat_maps]
        metrics = [metric for metric in results.table.metrics.values() if is_segmentation(metric) == of_heat_maps]
        if rows:
            found.append(_grid(results, head, rows, metrics, _wide if is_wide else _compact))
    return tuple(found)


def section_label(table: Table, row: Row) -> str:
    """Return the label of a backbone's rows; rows that are not in the paper have a label of their own."""
    is_published = any(row.id == other.id for other in table.rows)
    return f"{table.label(row.backbone)}{'' if is_published else ', our own rows'}"


def _grid(
    results: Results,
    head: str,
    rows: Sequence[RowCells],
    metrics: Sequence[Metric],
    render: Callable[[Metric, Sequence[Cell]], list[Column]],
) -> Grid:
    by_label: dict[str, list[RowCells]] = {}
    for row in rows:
        by_label.setdefault(section_label(results.table, row.row), []).append(row)
    sections = tuple(Section(label, tuple(row.row for row in same)) for label, same in by_label.items())
    rows = [row for same in by_label.values() for row in same]
    columns: list[Column] = []
    for metric in metrics:
        cells = [row.cells[metric.name] for row in rows]
        if any(cell.published is not None or _is_shown(cell.measured) for cell in cells):
            columns += render(metric, cells)
        columns += _local_columns(results, metric, rows)
    if render is _wide and not rows[0].row.reads_runs_of:
        columns += _seed_columns(results, rows)
    if not rows[0].row.reads_runs_of:
        columns += _evidence_columns(results, rows, is_wide=render is _wide)
    states = [row.state for row in rows]
    if any(state != "done" for state in states):
        entries = tuple(Entry(state, tone="bad" if state == FAILED else "quiet") for state in states)
        columns.append(Column("Runs", entries, is_numeric=False, weight=0.5))
    return Grid(head, sections, tuple(columns))


def _is_shown(measured: Measured) -> bool:
    """Return whether a value is shown next to published ones: a trained value only if from the published training."""
    is_local = measured.evidence == TRAINED and bool(measured.sample) and not measured.is_published_training
    return measured.value is not None and not is_local


def _compact(metric: Metric, cells: Sequence[Cell]) -> list[Column]:
    entries = tuple(compact_entry(cell) for cell in cells)
    published = sum(cell.published is not None for cell in cells)
    is_contradicted = any(cell.verdict in CONTRADICTED for cell in cells)
    weight = published / len(cells) + 2 * is_contradicted + 0.05 * (cells[0].measured.evidence != TIMED)
    return [Column(metric.label, entries, weight=weight)]


def compact_entry(cell: Cell) -> Entry:
    """Render measured value, published value and verdict in one cell."""
    entry = _measured_entry(cell)
    published = cell.published
    if published is None:
        return entry
    return replace(
        entry,
        text="" if entry.text == NOTHING else entry.text,
        published=published_number(published),
        published_mark=published_mark(cell),
        verdict=cell.verdict,
        tone=tone(cell.verdict),
        tooltip=tooltip(cell),
        source=published.source,
    )


def tooltip(cell: Cell) -> str:
    """Describe a cell with a published value in one line."""
    assert cell.published is not None
    measured = cell.measured
    parts = [f"{cell.row.id}, {cell.metric.label}"]
    if _is_shown(measured):
        parts.append(f"{VERBS[measured.evidence]} {measured_number(cell)}")
        if measured.sample:
            parts.append(f"{measured.n} {'turns' if measured.evidence == TIMED else 'seeds'}")
        if (interval := measured.finite_interval) is not None:
            parts.append(interval_words(interval))
    parts.append(f"published {describe_conflict(cell) or describe(cell.published)}")
    if cell.delta is not None:
        parts.append(f"delta {delta(cell.delta)} {delta_unit(cell.metric)}, tolerance {cell.tolerance:.3g}")
    why = f" ({measured.why_missing})" if measured.why_missing else ""
    return "; ".join([*parts, f"{cell.verdict}{why}"])


def _measured_entry(cell: Cell) -> Entry:
    """Render the measured value with its mark; a dash with a tooltip if there is none."""
    measured = cell.measured
    mark = (MASKED_MARK if measured.evidence == TIMED else ESTIMATED_MARK) if measured.note else ""
    if _is_shown(measured):
        return Entry(measured_number(cell), mark, tooltip=measured.note)
    return Entry(NOTHING, mark, tooltip=measured.why_missing)


def _wide(metric: Metric, cells: Sequence[Cell]) -> list[Column]:
    evidence = cells[0].measured.evidence
    head = VERBS[evidence]
    columns = [Column(head, tuple(_measured_entry(cell) for cell in cells), metric.label)]
    if any(cell.published is not None for cell in cells):
        columns.append(Column("published", tuple(map(_published_entry, cells)), metric.label))
        deltas = tuple(Entry(delta(cell.delta)) for cell in cells)
        if any(entry.text != NOTHING for entry in deltas):
            columns.append(Column(f"delta ({delta_unit(metric)})", deltas, metric.label))
        columns.append(Column("verdict", tuple(map(_verdict_entry, cells)), metric.label, is_numeric=False))
    return columns


def _published_entry(cell: Cell) -> Entry:
    if cell.published is None:
        return Entry()
    mark, source = published_mark(cell), cell.published.source
    return Entry(published_number(cell.published), mark, tooltip=describe(cell.published), source=source)


def _verdict_entry(cell: Cell) -> Entry:
    if cell.published is None:
        return Entry()
    return Entry(cell.verdict, tone=tone(cell.verdict), tooltip=tooltip(cell))


def _local_columns(results: Results, metric: Metric, rows: Sequence[RowCells]) -> Iterator[Column]:
    """Yield the column of a trained metric for training other than the published one; gains are only in the notes."""
    values = [row.cells[metric.name].measured for row in rows]
    local = [None if _is_shown(value) or not value.sample else value for value in values]
    if metric.name in GAINS or metric.needs not in ("training", "interpretation") or not any(local):
        return
    name = metric.label.removesuffix(" (%)")
    if is_segmentation(metric):
        head = heat_map_label(results, metric)
    else:
        head = local_label(results, name[:1].lower() + name[1:])
    entries = tuple(Entry() if value is None else Entry(with_spread(value)) for value in local)
    yield Column(head, entries, weight=1.5)


def _evidence_columns(results: Results, rows: Sequence[RowCells], *, is_wide: bool) -> Iterator[Column]:
    """Yield the accuracy of third-party weights, and highest rungs if any is neither `counted` nor this scale's."""
    table = results.table
    if any(row.evidence.adopted for row in rows):
        entries = []
        for row in rows:
            every = row.evidence.adopted
            texts, words = ([show(table, row.row, one) for one in every] for show in (with_symbol, describe_weights))
            tone_of_all = weights_tone(table, row.row, every) if every else ""
            verdicts = tuple(weights_verdict(table, row.row, one) for one in every)
            text, tooltip = ", ".join(texts) or NOTHING, "; ".join(words)
            entries.append(Entry(text, tone=tone_of_all, tooltip=tooltip, verdicts_in_text=verdicts))
        yield Column(WEIGHTS_TITLE, tuple(entries), weight=1.0)
    rungs = [row.context.rung for row in rows]
    if is_wide or not {COUNTED_RUNG, results.scale}.issuperset(rungs):
        yield Column("Evidence", tuple(Entry(rung) for rung in rungs), is_numeric=False, weight=0.4)


def _seed_columns(results: Results, rows: Sequence[RowCells]) -> Iterator[Column]:
    """Yield best and last epoch over the finished seeds, and the gain over the dense row."""
    group = local_label(results, "top-1") or "Top-1 over seeds"
    if any(row.evidence.n_done for row in rows):
        yield Column("seeds", tuple(Entry(str(row.evidence.n_done)) for row in rows), group)
    for head, name in (
        ("best epoch (%)", "top1_pct"),
        ("last epoch (%)", "top1_last_pct"),
        ("gain over dense (points)", "top1_gain_pct"),
    ):
        entries = tuple(Entry(with_spread(row.measured[name])) for row in rows)
        if any(not entry.is_empty for entry in entries):
            yield Column(head, entries, group)
    for head, interval_of in (
        ("best epoch, 95 % over seeds", lambda row: row.measured["top1_pct"].finite_interval),
        ("best epoch, 95 % over test images", test_image_interval),
    ):
        intervals = [interval_of(row) for row in rows]
        if any(intervals):
            entries = tuple(Entry("" if one is None else f"{one[0]:.1f} to {one[1]:.1f}") for one in intervals)
            yield Column(head, entries, group)

"""What `repro bench time` shows in the end: each row with its times, or why it has none. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table as Shown

from repro.composition import compose
from repro.measure.physical import why_untimed
from repro.rows import Row, Table
from repro.runs.timing import Timing, read_timing, timings_beside

NO_REFERENCE = "its backbone has no dense row in this table to be timed against"
NOT_YET = "not timed yet: the budget was used up; the same command goes on"


def timing_table(table: Table, rows: Sequence[Row], root: Path) -> Shown:
    """Rows by settings: the saving, and the latency (batch 1) or throughput behind it.

    On a GPU these are the medians of both models; on a CPU, where an absolute time means nothing, their ratio.
    """
    found = {row.id: list(_timings(root, row)) for row in rows}
    settings = list(dict.fromkeys(timing.setting.text for timings in found.values() for timing in timings))
    shown = Shown(title=f"{table.name}: time of the row's model against the dense one's")
    shown.add_column("row", no_wrap=True)
    for setting in settings:
        shown.add_column(setting, justify="right")
    shown.add_column("")
    for row in rows:
        by_setting = {timing.setting.text: timing for timing in found[row.id]}
        cells = [_cell(by_setting[setting]) if setting in by_setting else "" for setting in settings]
        shown.add_row(row.id, *cells, "" if found[row.id] else _why(table, row))
    return shown


def _timings(root: Path, row: Row) -> Iterator[Timing]:
    first = read_timing(root, row.table, row.id)
    if first is not None:
        yield first
    yield from timings_beside(root, row.table, row.id)


def _cell(timing: Timing) -> str:
    dense, own = timing.seconds
    batch, saving = timing.setting.batch, f"{timing.time_saving_pct:.1f} %"
    if timing.setting.threads:
        left = 1 - timing.time_saving_pct / 100
        return f"{saving} ({f'{left:.2f} of the latency' if batch == 1 else f'{1 / left:.2f} times the images/s'})"
    if batch == 1:
        return f"{saving} ({1000 * dense:.1f} to {1000 * own:.1f} ms)"
    return f"{saving} ({batch / dense:.1f} to {batch / own:.1f} images/s)"


def _why(table: Table, row: Row) -> str:
    if row.run_of:
        return f"its model is that of {row.run_of}"
    method = compose([*row.overrides_at("paper"), "data.root=not_read_by_a_timing"]).method
    return why_untimed(method) or (NO_REFERENCE if table.reference(row.backbone) is None else NOT_YET)

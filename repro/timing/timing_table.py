"""The table that `repro bench time` prints: each row with its times, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table as RichTable

from repro.config.costs import why_untimed
from repro.config.published_training import paper_config
from repro.runs.timing import Timing, read_timing, timings_by_batch
from repro.tables.rows import Row, Table

NO_REFERENCE = "this table has no dense row of its backbone to compare with"
NOT_YET = "not timed: the time budget (--budget) ran out; run the same command again"


def timing_table(table: Table, rows: Sequence[Row], root: Path) -> RichTable:
    """Return a table of rows by settings, with the time saving and the change in latency (batch 1) or throughput.

    On a GPU, it shows the medians of both models. On a CPU, where absolute times depend on other load, it shows their
    ratio.
    """
    timings = {row.id: {timing.setting.text: timing for timing in _timings(root, row)} for row in rows}
    settings = list(dict.fromkeys(text for by_setting in timings.values() for text in by_setting))
    shown = RichTable(title=f"{table.name}: time of each row's model relative to the dense model")
    shown.add_column("row", no_wrap=True)
    for setting in settings:
        shown.add_column(setting, justify="right")
    shown.add_column("")
    for row in rows:
        by_setting = timings[row.id]
        cells = [_cell(by_setting[setting]) if setting in by_setting else "" for setting in settings]
        shown.add_row(row.id, *cells, "" if by_setting else _reason(table, row))
    return shown


def _timings(root: Path, row: Row) -> Iterator[Timing]:
    column = read_timing(root, row.table, row.id)
    if column is not None:
        yield column
    yield from timings_by_batch(root, row.table, row.id)


def _cell(timing: Timing) -> str:
    dense, own = timing.seconds
    batch, saving = timing.setting.batch, f"{timing.time_saving_pct:.1f} %"
    if timing.setting.threads:
        ratio = 1 - timing.time_saving_pct / 100
        return f"{saving} ({f'{ratio:.2f} of the latency' if batch == 1 else f'{1 / ratio:.2f} times the images/s'})"
    if batch == 1:
        return f"{saving} ({1000 * dense:.1f} to {1000 * own:.1f} ms)"
    return f"{saving} ({batch / dense:.1f} to {batch / own:.1f} images/s)"


def _reason(table: Table, row: Row) -> str:
    if row.reads_runs_of:
        return f"has the model of {row.reads_runs_of}"
    return why_untimed(paper_config(row).method) or (NO_REFERENCE if table.reference(row.backbone) is None else NOT_YET)

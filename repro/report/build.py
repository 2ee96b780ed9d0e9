"""A report: the frame of a table, its files and its figure, from the records on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from repro.report.card import card_of
from repro.report.collect import gather
from repro.report.figures import figure1
from repro.report.mask_figure import mask_figure
from repro.report.more_figures import more_figures
from repro.report.page import write_page
from repro.report.tables import write_tables
from repro.rows import Row, Table


@dataclass(frozen=True)
class Report:
    """What was built: the frame behind it and the files, tables first."""

    frame: pd.DataFrame
    paths: tuple[Path, ...]


def build(
    table: Table,
    rows: Sequence[Row],
    scale: str,
    seeds: Sequence[int],
    runs_root: Path,
    reports_dir: Path,
    overrides: Sequence[str] = (),
) -> Report:
    """Write `<reports_dir>/<table>/<table>.{csv,md,tex,html}` its figures and `index.html`.

    Where runs have moved masks, also `<reports_dir>/<table>_masks.{svg,png,pdf}`.

    Reads nothing but the records below `runs_root`. Raises `UserError` as `collect` does.
    """
    frame, every = gather(table, rows, scale, seeds, runs_root, overrides)
    written = write_tables(frame, table, reports_dir / table.name, overrides)
    written += figure1(frame, table, reports_dir)
    written += mask_figure(table, rows, scale, runs_root, reports_dir, overrides)
    written += more_figures(frame, table, every, reports_dir)
    filled = card_of(table, every, scale, seeds, overrides)
    page = write_page(frame, table, every, filled, written, reports_dir, overrides)
    return Report(frame, (*written, page))

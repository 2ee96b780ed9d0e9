"""A report: the frame of a table, its files and its figure, from the records on disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.report.collect import gather
from repro.report.sharing import share
from repro.rows import Row, Table

if TYPE_CHECKING:
    import pandas as pd

    from repro.report.claims import JudgedClaim


@dataclass(frozen=True)
class Report:
    """What was built: the frame behind it, the files, tables first, what could not be drawn of finished models, and
    the claims about the table."""

    frame: pd.DataFrame
    paths: tuple[Path, ...]
    awaited: str = ""
    claims: tuple[JudgedClaim, ...] = ()


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

    The page holds every table that has been reported into this folder, and its figures are named for their table.

    Reads nothing but the records below `runs_root`: those of `rows`, of their references, and of the rows that claims
    name, so that the claims are judged alike whichever rows are shown. Raises `UserError` as `collect` does.
    """
    from repro.report.claims import judge_claims, rows_beside

    beside = rows_beside(table, rows, scale)
    whole, found = gather(table, rows, scale, seeds, runs_root, overrides, beside=beside, meanwhile=_import_the_rest)
    frame, every = whole.iloc[: len(rows)], found[: len(rows)]
    claims = judge_claims(whole, table)
    from repro.report.card import card_of, remembered_affiliation, write_card
    from repro.report.extracts import awaited
    from repro.report.figures import table_figure
    from repro.report.mask_figure import mask_figure
    from repro.report.more_figures import figure_jobs
    from repro.report.page import write_page
    from repro.report.tables import write_tables

    own = [evidence for evidence in every if not evidence.row.run_of]  # other rows read their runs, and have none
    # A row with settings of its own is no point on its method's line.
    usual = [evidence for evidence in own if not evidence.row.settings]
    points = frame[frame["row"].isin([evidence.row.id for evidence in usual])].reset_index(drop=True)
    jobs: list[Callable[[], Any]] = [
        lambda: card_of(table, every, scale, seeds, overrides, remembered_affiliation(reports_dir / table.name)),
        lambda: write_tables(frame, table, reports_dir / table.name, overrides, claims),
        lambda: table_figure(points, table, reports_dir),
        lambda: mask_figure(table, own, reports_dir),
        *figure_jobs(points, table, usual, reports_dir),
    ]
    # The last ones, which read curves and masks, are the longest: begun last, one of them would be waited for alone.
    filled, *files = reversed(share(jobs[::-1]))
    written: list[Path] = list(itertools.chain.from_iterable(files))
    if filled is not None:
        written += write_card(filled, reports_dir / table.name)
    missing = awaited(table, every, scale)
    written += write_page(frame, table, every, filled, written, reports_dir, overrides, awaited=missing, claims=claims)
    return Report(frame, tuple(written), missing, claims)


def _import_the_rest() -> None:
    """pandas and matplotlib take as long as reading a thousand records does: one process imports, the others read."""
    import scipy.special  # type: ignore[import-untyped]  # noqa: F401  # for intervals over seeds

    import repro.report.mask_figure
    import repro.report.more_figures
    import repro.report.page
    import repro.report.tables  # noqa: F401

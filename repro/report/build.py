"""Build a report from the records on disk: cells, table files, figures, and the section of the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.report.claim_verdicts import judge_claims
from repro.report.claims import rows_in_claims
from repro.report.collect import collect_results
from repro.report.findings import rows_in_findings
from repro.report.folders import report_folder, why_kept
from repro.report.orderings import rows_in_orderings
from repro.report.summary import summarise_results
from repro.report.view import View, view
from repro.tables.rows import Row, Table


@dataclass(frozen=True)
class Report:
    """The outcome of a build.

    Attributes:
        view: the rendered cells, claims and summary.
        folder: folder of the report's files.
        paths: files written, tables first; empty if an earlier, more complete report was kept.
        kept: why the earlier report was kept; empty otherwise.
        pending: figures of finished models that have not been drawn yet, and the command that draws them.
    """

    view: View
    folder: Path
    paths: tuple[Path, ...] = ()
    kept: str = ""
    pending: str = ""


def build(
    table: Table,
    rows: Sequence[Row],
    scale: str,
    seeds: Sequence[int],
    runs_root: Path,
    reports_dir: Path,
    overrides: Sequence[str] = (),
    *,
    is_wide: bool = False,
    is_forced: bool = False,
) -> Report:
    """Write the tables, figures and card of a report into `<reports_dir>/<table>/<scale>/`, and `index.html`.

    Reads only records under `runs_root`: those of `rows`, of their reference rows, and of the rows that claims name,
    so that the verdict on a claim does not depend on which rows are shown.

    Args:
        is_wide: include every column in the Markdown table.
        is_forced: replace an earlier report even if it has more rows or more finished runs.

    Raises `UserError` in the same cases as `collect_results`.
    """
    seen = view_of(table, rows, scale, seeds, runs_root, overrides)
    folder = report_folder(reports_dir, table.name, scale)
    kept = "" if is_forced else why_kept(folder, seen.summary)
    if kept:
        return Report(seen, folder, kept=kept)
    return _write(seen, reports_dir, is_wide=is_wide)


def view_of(
    table: Table, rows: Sequence[Row], scale: str, seeds: Sequence[int], runs_root: Path, overrides: Sequence[str] = ()
) -> View:
    """Render the records under `runs_root` as a view. Arguments and errors are those of `build`."""
    # These rows are always read, so that verdicts do not depend on which rows are shown.
    named = rows_in_claims(table) | rows_in_findings(table) | rows_in_orderings(table, scale)
    named -= {row.id for row in rows}
    others = [row for row in table.every_row if row.id in named and row.is_run_at(scale)]
    results = collect_results(table, rows, scale, seeds, runs_root, overrides, others=others)
    claims = judge_claims(results)
    return view(results, claims, summarise_results(results, claims))


def _write(seen: View, reports_dir: Path, *, is_wide: bool) -> Report:
    # Importing pandas and matplotlib takes as long as reading a thousand records.
    from repro.report.card import card_of, remembered_affiliation, write_card
    from repro.report.figures.drawings import write_figures
    from repro.report.figures.pending import pending_figures
    from repro.report.page import links_of, run_lines, write_page
    from repro.report.tables import write_tables

    results = seen.results
    table, scale = results.table, results.scale
    folder = report_folder(reports_dir, table.name, scale)
    runs = run_lines(results, reports_dir)
    written = write_tables(seen, folder, links_of(runs), is_wide=is_wide)
    figures, paths = write_figures(results, folder)
    written += paths
    card = card_of(results, remembered_affiliation(reports_dir / table.name))
    if card is not None:
        written += write_card(card, folder)
    pending = pending_figures(table, [row.evidence for row in results.rows], scale)
    written += write_page(seen, runs, card, figures, reports_dir, pending)
    return Report(seen, folder, tuple(written), pending=pending)

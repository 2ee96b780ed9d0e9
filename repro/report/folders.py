"""Report folders, `<reports>/<table>/<scale>/`, and the check whether to keep an earlier report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.errors import UserError, count_of
from repro.files import read_object
from repro.report.summary import Summary
from repro.tables.loader import table_names

_SCALES = ("paper", "mini", "local", "smoke")  # in the order of the page


def report_folder(folder: Path, table: str, scale: str) -> Path:
    """Return the folder of a table's report at one scale."""
    return folder / table / scale


def reported(folder: Path) -> list[Path]:
    """Return the folders of all reports in `folder`, sorted by table, then by scale."""
    return [
        own for table in table_names() for scale in _SCALES if (own := report_folder(folder, table, scale)).is_dir()
    ]


def why_kept(folder: Path, summary: Summary) -> str:
    """Return why the report in `folder` must not be replaced by the new one; empty if it may be.

    It is kept if it has rows that are missing from the new one, or more finished runs.
    """
    earlier = _read_summary(folder / "summary.json")
    if earlier is None:
        return ""
    rows, runs = set(earlier["row_ids"]), earlier["finished_runs"]
    if rows <= set(summary.row_ids) and runs <= summary.n_finished_runs:
        return ""
    return (
        f"{folder} is left as it is: its report has {count_of(len(rows), 'row')} and "
        f"{count_of(runs, 'finished run')}, this one {len(summary.row_ids)} and {summary.n_finished_runs}; "
        "--force replaces it, --reports DIR writes elsewhere"
    )


def _read_summary(file: Path) -> dict[str, Any] | None:
    next_step = "remove it, and report that table again"
    earlier = read_object(file, next_step)
    if earlier is None:
        return None
    rows, runs = earlier.get("row_ids"), earlier.get("finished_runs")
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows) or not isinstance(runs, int):
        raise UserError(f"{file}: no row_ids or finished_runs; {next_step}")
    return earlier

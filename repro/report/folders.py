"""Report folders, `<reports>/<table>/<scale>/`, and the check whether to keep an earlier report."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from repro.errors import count_of
from repro.report.summary import Summary
from repro.runs.validation import read_validated
from repro.tables.loader import table_names

_SCALES = ("paper", "mini", "local", "smoke")  # in the order of the page


def report_folder(folder: Path, table: str, scale: str) -> Path:
    """Return the folder of a table's report at one scale."""
    return folder / table / scale


def report_folders(folder: Path) -> list[Path]:
    """Return the folders of all reports in `folder`, sorted by table, then by scale."""
    return [
        own for table in table_names() for scale in _SCALES if (own := report_folder(folder, table, scale)).is_dir()
    ]


def why_kept(folder: Path, summary: Summary) -> str:
    """Return why the report in `folder` must not be replaced by the new one; empty if it may be.

    It is kept if it has rows that are missing from the new one, or more finished runs.
    """
    earlier = read_validated(folder / "summary.json", _EarlierSummary, "remove it, and report that table again")
    if earlier is None:
        return ""
    rows, runs = earlier.row_ids, earlier.finished_runs
    if rows <= set(summary.row_ids) and runs <= summary.n_finished_runs:
        return ""
    return (
        f"{folder} is left as it is: its report has {count_of(len(rows), 'row')} and "
        f"{count_of(runs, 'finished run')}, this one {len(summary.row_ids)} and {summary.n_finished_runs}; "
        "--force replaces it, --reports DIR writes elsewhere"
    )


class _EarlierSummary(BaseModel):
    """The part of summary.json that is read back."""

    row_ids: set[str]
    finished_runs: int

"""The table that `repro status` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from repro.errors import count_of
from repro.launch import slurm
from repro.launch.status import RunStatus
from repro.launch.text_table import MAX_ROWS, duration, state_counts, text_table
from repro.tracking.login import is_logged_in
from repro.tracking.mirror_file import behind_summary

ENDED = ("done", "failed", "cancelled")
QUIET = ("done", "planned")  # states that a long table leaves out
STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "dead": "red",
    "submitted": "yellow",
    "requeued": "yellow",
}
HEADERS = ("row", "seed", "state", "progress", "ETA", "last epoch", "job", "node", "attempts", "why")
NO_SLURM = "Slurm does not answer here: the states of jobs are those in their records, and may be out of date"


def status_table(
    title: str, statuses: Sequence[RunStatus], has_queue: bool = True, max_rows: int = MAX_ROWS
) -> RenderableType:
    """Build a table with a line for each run, the number of runs in each state, and notes.

    If there are more than `max_rows` runs, those that are done or planned are not listed. `has_queue` is whether Slurm
    has answered.
    """
    listed = list(statuses)
    if len(listed) > max_rows:
        listed = [each for each in statuses if each.state not in QUIET][:max_rows]
    rows = [_row(each) for each in listed]
    counts = state_counts(each.state for each in statuses)
    hidden = len(statuses) - len(listed)
    more = f" (not listed: {count_of(hidden, 'run')}; --all lists all)" if hidden else ""
    table = text_table(HEADERS, rows, right=("seed", "progress", "ETA", "attempts"))
    return Group(*([table] if rows else []), Text(f"{title}: {counts}{more}"), *map(Text, _notes(statuses, has_queue)))


def _row(run: RunStatus) -> list[str | Text]:
    return [
        run.row,
        str(run.seed),
        Text(run.state, STYLES.get(run.state, "")),
        f"{100 * run.update // run.updates} %" if run.updates else "",
        duration(run.eta_s),
        _last(run),
        run.job_id or "",
        run.host or "",
        str(run.attempts or ""),
        (run.reason or "").partition("\n")[0],
    ]


def _last(run: RunStatus) -> str:
    """Format the accuracy of the last evaluated epoch, or the loss before the first evaluation."""
    last = "" if run.loss is None else f"loss {run.loss:.3f}"
    if run.top1_pct is not None:
        last = f"top-1 {run.top1_pct:.2f} %"
    return last if run.loader_share_pct is None else f"{last}, loader {run.loader_share_pct:.0f} %"


def _notes(statuses: Sequence[RunStatus], has_queue: bool) -> list[str]:
    notes = []
    if not has_queue and any(each.state not in ENDED and slurm.is_job_id(each.job_id) for each in statuses):
        notes.append(NO_SLURM)
    rows_by_hint: dict[str, list[str]] = {}
    for each in statuses:
        if each.hint is not None:
            rows_by_hint.setdefault(each.hint, []).append(each.row)
    notes += [f"{', '.join(dict.fromkeys(rows))}: {hint}" for hint, rows in rows_by_hint.items()]
    mirrors = [(Path(each.record), each.mirror) for each in statuses]
    behind = behind_summary(mirrors, is_logged_in=is_logged_in())
    return notes + ([behind] if behind else [])

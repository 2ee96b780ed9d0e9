"""Where the runs of a table stand, from their records and Slurm's queue: for `repro status`, live or as JSON."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from repro.launch import slurm
from repro.launch.columns import columns
from repro.launch.liveness import why_alive
from repro.launch.plan import PlannedRun
from repro.tracking.mirror_file import Mirror, mirror_of, what_is_behind

ENDED = ("done", "failed", "cancelled")
UNASKED = "Slurm cannot be asked from here: what it has is shown as its record says, and may have died since"
STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "dead": "red",
    "submitted": "yellow",
    "requeued": "yellow",
}


@dataclass(frozen=True)
class Line:
    """One run. `state` is the status's, or `dead` for one that nobody is at any more; times in seconds.

    `mirror` is None where nothing mirrors the run.
    """

    row: str
    seed: int
    state: str
    update: int
    updates: int
    eta_s: float | None
    silent_s: float | None
    top1_pct: float | None
    loss: float | None
    job_id: str | None
    host: str | None
    attempts: int
    reason: str | None
    record: str
    mirror: Mirror | None = None
    loader_share_pct: float | None = None
    hint: str | None = None


def lines(
    runs: Sequence[PlannedRun],
    jobs: Mapping[str, slurm.Job] | None,
    now: float | None = None,
    asked: float = math.inf,
    ended: Callable[[list[str]], Mapping[str, str]] = slurm.ended,
) -> list[Line]:
    """One line for each run, in order. What accounting knows of the jobs of dead runs stands in their reasons.

    `asked` is when `jobs` was asked for, in Unix seconds: it knows nothing of what came later. `ended` asks accounting.
    """
    moment = time.time() if now is None else now
    found = [_line(run, jobs, moment, asked) for run in runs]
    died = [line.job_id for line in found if line.state == "dead" and line.job_id] if jobs is not None else []
    ends = ended(died) if died else {}
    return [
        replace(line, reason=f"{line.reason} (its job: {end.lower()})")
        if line.state == "dead" and (end := ends.get(line.job_id or ""))
        else line
        for line in found
    ]


def _line(run: PlannedRun, jobs: Mapping[str, slurm.Job] | None, now: float, asked: float) -> Line:
    status = run.record.status()
    if status.heartbeat > asked and status.job_id not in (jobs or {}):
        jobs = None
    state, reason = run.state_at(status), status.reason
    job = jobs.get(status.job_id) if jobs is not None and status.job_id else None
    if state == "running" and job is not None and job.state == "PENDING" and status.is_silent(now):
        state, reason = "requeued", "ended without a word, its node perhaps: Slurm has its job in the queue again"
    if state in ("running", "submitted") and why_alive(run.record, status, jobs, now) is None:
        if run.record.status() != status:  # it has just ended, and said how
            return _line(run, jobs, now, asked)
        state = "dead"
        reason = reason or _why_dead(run)
    elif state == "requeued" and jobs is not None and slurm.is_job_id(status.job_id) and job is None:
        reason = " ".join(filter(None, [reason, "(not in the queue: launch again)"]))
    elif job is not None and state != "running":
        reason = " ".join(filter(None, [reason, f"({job.state.lower()}: {job.reason})" if job.reason else ""]))
    return Line(
        row=run.row.id,
        seed=run.config.seed,
        state=state,
        update=status.update,
        updates=status.updates,
        eta_s=status.eta_s() if state == "running" else None,
        silent_s=round(now - status.heartbeat, 1) if state in ("running", "dead") else None,
        top1_pct=status.top1_pct,
        loss=status.loss,
        job_id=status.job_id,
        host=status.host,
        attempts=status.attempt,
        reason=reason,
        record=str(run.record.path),
        mirror=mirror_of(run.record.path, is_at_work=state == "running"),
        loader_share_pct=status.loader_share_pct if state == "running" else None,
        hint=status.hint if state == "running" else None,
    )


def _why_dead(run: PlannedRun) -> str:
    origin = run.starts_from
    if origin is not None and origin.state in ("failed", "cancelled"):
        return f"begins with {origin.row.id}, which {origin.state}: never started"
    return "nobody is at it any more; launch goes on with it"


def as_json(entries: Sequence[Line]) -> list[dict[str, Any]]:
    """Plain values."""
    return [asdict(entry) for entry in entries]


def render(title: str, entries: Sequence[Line], has_asked: bool = True) -> RenderableType:
    """The table that a person reads. `has_asked` is whether Slurm's queue is known."""
    rows = [
        (
            entry.row,
            str(entry.seed),
            entry.state,
            f"{100 * entry.update // entry.updates} %" if entry.updates else "",
            duration(entry.eta_s),
            _last(entry),
            entry.job_id or "",
            entry.host or "",
            str(entry.attempts or ""),
            (entry.reason or "").partition("\n")[0],
        )
        for entry in entries
    ]
    heads = ("row", "seed", "state", "progress", "ETA", "last", "job", "node", "attempts", "why")
    table = columns(heads, rows, right=("seed", "progress", "ETA", "attempts"), styles=STYLES)
    counts = ", ".join(f"{number} {state}" for state, number in Counter(entry.state for entry in entries).items())
    behind = what_is_behind((Path(entry.record), entry.mirror) for entry in entries)
    unknown = [each for each in entries if each.state not in ENDED and slurm.is_job_id(each.job_id)]
    notes = [*([] if has_asked or not unknown else [UNASKED]), *_hints(entries), *([behind] if behind else [])]
    return Group(table, Text(f"{title}: {counts}"), *map(Text, notes))


def _last(entry: Line) -> str:
    last = "" if entry.loss is None else f"loss {entry.loss:.3f}"
    if entry.top1_pct is not None:
        last = f"top-1 {entry.top1_pct:.2f} %"
    return last if entry.loader_share_pct is None else f"{last}, loader {entry.loader_share_pct:.0f} %"


def _hints(entries: Sequence[Line]) -> list[str]:
    """What running runs say should be set: a line for each of them, the same words once."""
    rows: dict[str, list[str]] = {}
    for entry in entries:
        if entry.hint is not None:
            rows.setdefault(entry.hint, []).append(entry.row)
    return [f"{', '.join(dict.fromkeys(names))}: {hint}" for hint, names in rows.items()]


def duration(seconds: float | None) -> str:
    """`3 d 4 h`, `2 h 5 min`, `40 s`; nothing for None."""
    if seconds is None:
        return ""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = max(0, round(seconds))
    for number, (name, size) in enumerate(units):
        if left >= size or name == "s":
            whole, rest = divmod(left, size)
            smaller = units[number + 1] if number + 1 < len(units) else None
            more = f" {rest // smaller[1]} {smaller[0]}" if smaller and rest >= smaller[1] else ""
            return f"{whole} {name}{more}"
    raise AssertionError("seconds are the last unit")

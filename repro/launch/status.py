"""The state of each run, derived from its record and Slurm's queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.launch import slurm
from repro.launch.liveness import why_alive
from repro.launch.manifest import read_manifest
from repro.launch.plan import PlannedRun
from repro.launch.queue import Queue
from repro.runs.status import Status
from repro.tracking.mirror_file import Mirror, mirror_of

DEAD = "its process is gone; launch again"
LOST_NODE = "its node failed; Slurm has its job in the queue again"


@dataclass(frozen=True)
class RunStatus:
    """What `repro status` shows of one run."""

    row: str
    seed: int
    state: str  # that of the record, or `dead`
    update: int  # updates done, of `updates`
    updates: int
    eta_s: float | None
    silent_s: float | None  # time since the last heartbeat
    top1_pct: float | None
    loss: float | None
    job_id: str | None
    host: str | None
    attempts: int
    reason: str | None
    record: str
    mirror: Mirror | None = None  # None if nothing mirrors the run
    loader_share_pct: float | None = None
    hint: str | None = None


def run_statuses(
    runs: Sequence[PlannedRun],
    queue: Queue | None,
    now: float | None = None,
    ended: Callable[[tuple[str, ...]], Mapping[str, str]] = slurm.ended,
) -> list[RunStatus]:
    """Return the status of each run, in order; `ended` returns how the jobs of dead runs ended."""
    now = time.time() if now is None else now
    found = [_run_status(run, queue, now) for run in runs]
    dead = tuple(each.job_id for each in found if each.state == "dead" and each.job_id)
    ends = ended(dead) if dead and queue is not None else {}
    return [
        replace(each, reason=f"{each.reason} (its job: {ends[each.job_id or ''].lower()})")
        if each.state == "dead" and each.job_id in ends
        else each
        for each in found
    ]


def _run_status(run: PlannedRun, queue: Queue | None, now: float) -> RunStatus:
    status = run.record.status()
    job = None if queue is None else queue.job_of(run.record, status)
    if queue is not None and job is None and not queue.is_newer_than(status):
        queue = None
    state, reason = _state(run, status, job, queue, now)
    if state == "dead" and run.record.status() != status:  # it ended between the two reads, and wrote why
        return _run_status(run, queue, now)
    is_running = state == "running"
    return RunStatus(
        row=run.row.id,
        seed=run.config.seed,
        state=state,
        update=status.update,
        updates=status.updates,
        eta_s=status.eta_s() if is_running else None,
        silent_s=round(now - status.heartbeat, 1) if state in ("running", "dead") else None,
        top1_pct=status.top1_pct,
        loss=status.loss,
        job_id=_job_id(run, status) if job is None else job.id,
        host=status.host,
        attempts=status.attempt,
        reason=reason,
        record=str(run.record.path),
        mirror=mirror_of(run.record.path, is_running=is_running),
        loader_share_pct=status.loader_share_pct if is_running else None,
        hint=status.hint if is_running else None,
    )


def _state(
    run: PlannedRun, status: Status, job: slurm.Job | None, queue: Queue | None, now: float
) -> tuple[str, str | None]:
    """Return the state of a run and the reason for it."""
    state, reason = run.state_at(status), status.reason
    if state == "running" and job is not None and job.state == "PENDING" and status.is_silent(now):
        state, reason = "requeued", LOST_NODE
    if state in ("running", "submitted") and why_alive(run.record, status, queue, now) is None:
        return "dead", reason or _why_dead(run)
    note = ""
    if job is not None and state != "running":
        note = f"({job.state.lower()}: {job.reason})" if job.reason else ""
    elif state == "requeued" and queue is not None and slurm.is_job_id(status.job_id):
        note = "(not in Slurm's queue: launch again)"
    return state, " ".join(filter(None, [reason, note])) or None


def _why_dead(run: PlannedRun) -> str:
    origin = run.starts_from
    if origin is not None and origin.state in ("failed", "cancelled"):
        return f"never started: it starts from {origin.row.id}, which {origin.state}"
    return DEAD


def _job_id(run: PlannedRun, status: Status) -> str | None:
    """Return the id of the job that had a run: the one in its status, or its task in the array of its submission."""
    if status.job_id is not None or status.array is None:
        return status.job_id
    root = Path(run.config.run.root)
    manifest = read_manifest(root, status.array)
    index = None if manifest is None else manifest.index_of(root, run.record)
    return None if manifest is None or index is None else manifest.task_id(index)

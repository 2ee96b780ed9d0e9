"""Cancels runs: Slurm jobs by scancel, processes on this machine by SIGTERM, queued runs in their records."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import Timeout

from repro.errors import UserError
from repro.launch import slurm
from repro.launch.liveness import why_alive
from repro.launch.lock import launch_lock
from repro.launch.plan import PlannedRun
from repro.launch.queue import Queue
from repro.runs.permissions import may_signal, user_name
from repro.runs.status import Status

SAVE_WAIT_S = 60.0
REASON = "cancelled by repro cancel"


@dataclass
class Cancelled:
    """A line of text for each run that was alive: those that are stopping, and those that are not cancelled."""

    stopping: list[str] = field(default_factory=list)
    not_cancelled: list[str] = field(default_factory=list)


def cancel(runs: Sequence[PlannedRun], queue: Queue | None, root: Path, save_wait_s: float = SAVE_WAIT_S) -> Cancelled:
    """Cancel the runs that are alive. They save a checkpoint first, and a later launch can resume them.

    A run that counts as alive only because Slurm does not answer is marked as cancelled, and its line says what to
    check. This waits up to `save_wait_s` seconds for the runs to save.
    """
    lines = Cancelled()
    _withdraw_queued(runs, queue, root, lines)  # first, or the launch would start them as soon as others stop
    jobs: dict[str, PlannedRun] = {}
    marked: list[PlannedRun] = []
    for run in runs:
        status, now = run.record.status(), time.time()
        if run.is_done or not run.record.path.is_dir() or why_alive(run.record, status, queue, now) is None:
            continue
        job = None if queue is None else queue.job_of(run.record, status)
        if job is not None:
            if _may_stop(run, status, f"job {job.id}", lines):
                jobs[job.id] = run
        elif _is_process_here(run, status):
            if _may_stop(run, status, f"process {status.pid}", lines) and _terminate(run, status, lines):
                marked.append(run)
        elif queue is None and status.is_silent(now) and not run.record.is_locked:
            job_text = f"job {status.job_id}" if status.job_id else "a job of this run"
            if _may_stop(run, status, job_text, lines):
                advice = f"make sure that it does not have {job_text}"
                lines.not_cancelled.append(f"{run.row.id}: marked as cancelled, but Slurm does not answer: {advice}")
                marked.append(run)
        else:
            lines.not_cancelled.append(f"{run.row.id}: {_why_unreachable(status)}")
    marked += _cancel_jobs(jobs, lines)
    _wait_until_saved(marked, save_wait_s)
    _mark(marked, root)
    return lines


def _withdraw_queued(runs: Sequence[PlannedRun], queue: Queue | None, root: Path, lines: Cancelled) -> None:
    """Cancel runs that wait in a launch, on any machine: a launch reads the record again before it starts a run."""
    queued = [run for run in runs if _is_queued(run, queue)]
    if not queued:
        return
    with launch_lock(root):
        for run in queued:
            # If the lock is taken, the run is just starting.
            with suppress(Timeout), run.record.lock.acquire(timeout=0):
                if _is_queued(run, queue):
                    status = run.record.status().withdrawn()
                    run.record.set_status(replace(status, state="cancelled", reason=REASON))
                    lines.stopping.append(f"{run.row.id}: removed from the queue of its launch")


def _is_queued(run: PlannedRun, queue: Queue | None) -> bool:
    status = run.record.status()
    is_local = status.state == "submitted" and status.pid is not None and not run.is_done
    return is_local and why_alive(run.record, status, queue, time.time()) is not None


def _may_stop(run: PlannedRun, status: Status, what: str, lines: Cancelled) -> bool:
    """Return whether this user may stop a run; if not, add a line that says who may."""
    if may_signal(status.user):
        return True
    lines.not_cancelled.append(f"{run.row.id}: {what} belongs to {user_name(status.user)}, and only they can stop it")
    return False


def _is_process_here(run: PlannedRun, status: Status) -> bool:
    """Return whether a process on this machine executes the run. The lock proves that its pid is not a reused one."""
    is_here = status.state == "running" and status.host == platform.node() and status.pid is not None
    return is_here and run.record.is_locked


def _terminate(run: PlannedRun, status: Status, lines: Cancelled) -> bool:
    """Send SIGTERM to the process of a run on this machine; return whether it will stop."""
    assert status.pid is not None
    try:
        os.kill(status.pid, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended
        return False
    except PermissionError:  # the record names no user
        lines.not_cancelled.append(
            f"{run.row.id}: process {status.pid} belongs to another user, and only they can stop it"
        )
        return False
    lines.stopping.append(f"{run.row.id}: process {status.pid} saves and stops")
    return True


def _why_unreachable(status: Status) -> str:
    if status.state == "submitted" and status.pid is None:
        return "submitted to Slurm, not in its queue yet; try again in two minutes"
    if status.state == "submitted":
        return "is being started; try again"
    place = f"on {status.host}" if status.host else "elsewhere"
    return f"is {status.state} {place}; stop its launch there (Ctrl-C)"


def _cancel_jobs(jobs: Mapping[str, PlannedRun], lines: Cancelled) -> list[PlannedRun]:
    """Cancel Slurm jobs; return the runs of those that Slurm has cancelled."""
    refused = _still_queued(slurm.cancel(list(jobs)))
    for job_id, run in jobs.items():
        if job_id in refused:
            lines.not_cancelled.append(f"{run.row.id}: job {job_id} is not cancelled: {refused[job_id]}")
        else:
            lines.stopping.append(f"{run.row.id}: cancelling job {job_id}")
    return [run for job_id, run in jobs.items() if job_id not in refused]


def _still_queued(refused: Mapping[str, str]) -> Mapping[str, str]:
    """Return the refused jobs that are still in the queue; scancel also refuses a job that has just ended."""
    if not refused:
        return refused
    try:
        queue = slurm.queue_of_everyone()
    except UserError:
        return refused
    return {job_id: message for job_id, message in refused.items() if job_id in queue}


def _wait_until_saved(runs: Sequence[PlannedRun], wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while any(run.record.is_locked for run in runs) and time.monotonic() < until:
        time.sleep(0.25)


def _mark(runs: Sequence[PlannedRun], root: Path) -> None:
    """Mark the runs that have stopped before they were done as cancelled."""
    if not runs:
        return
    with launch_lock(root):
        for run in runs:
            status = run.record.status()
            if status.state in ("submitted", "running", "requeued") and not run.is_done and not run.record.is_locked:
                run.record.set_status(status.moved("cancelled", reason=REASON))

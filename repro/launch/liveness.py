"""Whether somebody is at a run. Three witnesses: Slurm, the lock on the record, the heartbeat."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import psutil

from repro.launch.slurm import Job
from repro.runs.record import Record
from repro.runs.status import Status


def why_alive(record: Record, status: Status, jobs: Mapping[str, Job] | None, now: float) -> str | None:
    """Why this run is taken for alive; None where nobody is at it.

    `jobs` is Slurm's queue, None where this machine cannot ask. `now` in Unix seconds.
    """
    if status.state in ("done", "failed", "cancelled") or (status.state == "planned" and not status.heartbeat):
        return None
    if status.job_id is not None and jobs is not None and status.job_id in jobs:
        return f"Slurm has job {status.job_id}: {jobs[status.job_id].state.lower()}"
    if record.is_locked:
        return "a process holds its lock"
    here = status.host == platform.node()
    if status.state == "submitted":
        if status.job_id is not None and jobs is None:
            return f"submitted to Slurm as {status.job_id}, which cannot be asked from here"
        # Waiting in the line of a launch on this machine, or on another one that shares the folder.
        alive = _is_process(status.pid) if here else status.pid is not None and not status.is_silent(now)
        return "another launch has it in its line" if alive else None
    if status.state == "running" and not here and not status.is_silent(now):
        return f"heartbeat from {status.host} {now - status.heartbeat:.0f} s ago"
    return None  # on this machine the lock would be held: no need to wait until the heartbeat is old


def _is_process(pid: int | None) -> bool:
    return pid is not None and psutil.pid_exists(pid)

"""Whether somebody is at a run. Three witnesses: Slurm, the lock on the record, the heartbeat."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import psutil

from repro.launch import slurm
from repro.launch.slurm import Job
from repro.runs.record import Record
from repro.runs.status import Status


def why_alive(record: Record, status: Status, jobs: Mapping[str, Job] | None, now: float) -> str | None:
    """Why this run is taken for alive; None where nobody is at it.

    `jobs` is Slurm's queue, None where this machine cannot ask. `now` in Unix seconds. The queue is believed before
    the status, whatever that says: a job that was told to stop may have been requeued since by Slurm itself, and one
    that Slurm has need not be started a second time. In doubt a run is alive: to wait costs time, two attempts cost
    both.
    """
    if status.state == "done" or (status.state == "planned" and not status.heartbeat):
        return None
    if status.job_id is not None and jobs is not None and status.job_id in jobs:
        return f"Slurm has job {status.job_id}: {jobs[status.job_id].state.lower()}"
    if status.state in ("failed", "cancelled"):
        return None
    if record.is_locked:
        return "a process holds its lock"
    if jobs is None and slurm.is_job_id(status.job_id) and status.state != "planned":
        return f"job {status.job_id} of Slurm, which cannot be asked from here"
    if status.state == "submitted":
        return _why_waiting(status, jobs, now)
    if status.state == "running" and status.host != platform.node() and not status.is_silent(now):
        return f"heartbeat from {status.host} {now - status.heartbeat:.0f} s ago"
    return None  # on this machine the lock would be held: no need to wait until the heartbeat is old


def _why_waiting(status: Status, jobs: Mapping[str, Job] | None, now: float) -> str | None:
    """Why a run that was handed out will still be started by whoever has it; None where nobody will."""
    if slurm.is_job_id(status.job_id):
        return None  # the queue was asked, and does not know the job
    if status.pid is None:
        # Between sbatch and its number on disk: sbatch may have given up while the controller went on.
        if jobs is None:
            return "handed to Slurm, which cannot be asked from here"
        return None if status.is_silent(now) else f"handed to Slurm {now - status.heartbeat:.0f} s ago, no job seen yet"
    # In the line of a launch, on this machine or on another one that shares the folder; it renews the heartbeat. The
    # number of a process may have been given to another one since.
    is_gone = status.host == platform.node() and not psutil.pid_exists(status.pid)
    return None if is_gone or status.is_silent(now) else "another launch has it in its line"

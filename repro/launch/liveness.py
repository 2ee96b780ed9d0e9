"""Decides from Slurm's queue, the lock on its record and its heartbeat whether a run is alive."""

from __future__ import annotations

import platform

import psutil

from repro.launch import slurm
from repro.launch.queue import Queue
from repro.runs.record import Record
from repro.runs.status import Status


def why_alive(record: Record, status: Status, queue: Queue | None, now: float) -> str | None:
    """Return why a run counts as alive; None if no process or job executes it.

    The queue (None if Slurm does not answer) takes precedence over the status, because Slurm may have requeued a job
    that was being stopped. In doubt a run counts as alive: waiting costs time, but two concurrent attempts waste both.
    """
    if status.state == "done" or (status.state == "planned" and not status.heartbeat):
        return None
    job = None if queue is None else queue.job_of(record, status)
    if job is not None:
        return f"Slurm job {job.id} is {job.state.lower()}"
    if status.state in ("failed", "cancelled"):
        return None
    if record.is_locked:
        return "a process holds its lock"
    if queue is None and slurm.is_job_id(status.job_id) and status.state != "planned":
        return f"Slurm may have its job {status.job_id}, and does not answer here"
    if status.state == "submitted":
        return _why_queued(status, queue, now)
    if status.state == "running" and status.host != platform.node() and not status.is_silent(now):
        return f"heartbeat from {status.host} {now - status.heartbeat:.0f} s ago"
    return None  # a live process on this machine would hold the lock


def _why_queued(status: Status, queue: Queue | None, now: float) -> str | None:
    """Return why a submitted run will still be started; None if it will not."""
    if status.pid is None:  # submitted to Slurm, whose queue may lag behind sbatch
        if queue is None:
            return "submitted to Slurm, which does not answer here"
        is_new = not status.is_silent(now) and not slurm.is_job_id(status.job_id) and not queue.has_lost(status)
        return f"submitted to Slurm {now - status.heartbeat:.0f} s ago, not in its queue yet" if is_new else None
    # A launch that is alive renews the heartbeat. Its pid alone proves nothing, since another process may have it now.
    is_gone = status.host == platform.node() and not psutil.pid_exists(status.pid)
    return None if is_gone or status.is_silent(now) else "queued by another launch"

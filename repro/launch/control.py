"""Telling runs to stop: those of Slurm through scancel, those of this machine by a signal."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from repro.errors import UserError
from repro.launch import slurm
from repro.launch.liveness import why_alive
from repro.launch.plan import PlannedRun
from repro.launch.reconcile import launcher_lock
from repro.runs.sharing import may_act_for, name_of

SAVE_WAIT_S = 60.0
REASON = "cancelled with repro cancel"


@dataclass(frozen=True)
class Cancelled:
    """A line for each run that was waiting or at work: those that were told to stop, and those that are left at it."""

    told: Sequence[str]
    left: Sequence[str]


def cancel(runs: Sequence[PlannedRun], jobs: Mapping[str, slurm.Job] | None, root: Path) -> Cancelled:
    """Stop runs that are waiting or at work. They save first, and a launch goes on with them.

    Runs on another machine that is not Slurm's cannot be reached from here: the line says so. A run that is taken for
    alive only because Slurm cannot be asked is given up, and the line says what to make sure of. What Slurm does not
    cancel is left as it is, and changes nothing for the others.
    """
    # First what waits in the line of a launch: it would start the next ones in the place of those that stop.
    said, left = _taken_out_of_lines(runs, jobs, root), []
    to_slurm, ours, given_up = {}, [], []
    for run in runs:
        status, now = run.record.status(), time.time()
        if run.is_done or not run.record.path.is_dir() or why_alive(run.record, status, jobs, now) is None:
            continue
        has_job = jobs is not None and status.job_id in jobs
        has_process = status.host == platform.node() and status.pid is not None and status.state == "running"
        if (has_job or has_process) and not may_act_for(status.user):
            what = f"job {status.job_id}" if has_job else f"process {status.pid}"
            left.append(f"{run.row.id}: {what} belongs to {name_of(status.user)}, who alone can stop it")
        elif has_job and status.job_id is not None:
            to_slurm[status.job_id] = run
        elif has_process and status.pid is not None and run.record.is_locked:
            # The lock tells that it lives: what only Slurm could vouch for may have left its number to another process.
            try:
                os.kill(status.pid, signal.SIGTERM)
            except ProcessLookupError:
                continue  # it has just ended
            except PermissionError:  # of a record that does not say whose it is
                left.append(f"{run.row.id}: process {status.pid} is another person's: they have to stop it")
            else:
                ours.append(run)
                said.append(f"{run.row.id}: asking process {status.pid} to save and stop")
        elif jobs is None and status.job_id and not may_act_for(status.user):
            left.append(f"{run.row.id}: job {status.job_id} belongs to {name_of(status.user)}, who alone can stop it")
        elif jobs is None and status.is_silent(now) and not run.record.is_locked:
            given_up.append(run)
            job = f"job {status.job_id}" if status.job_id else "a job of this run"
            left.append(f"{run.row.id}: cancelled here; Slurm cannot be asked: make sure that it does not have {job}")
        elif status.state == "submitted" and status.pid is None:
            left.append(f"{run.row.id}: handed to Slurm, which shows no job of it yet; try again in two minutes")
        elif status.state == "submitted":
            left.append(f"{run.row.id}: is being started; try again")
        else:
            where = f"on {status.host}" if status.host else "elsewhere"
            left.append(f"{run.row.id}: is {status.state} {where}; stop its launch there (Ctrl-C)")
    refused = _still_there(slurm.cancel(list(to_slurm)))
    for job_id, run in to_slurm.items():
        if job_id in refused:
            left.append(f"{run.row.id}: job {job_id} is not cancelled: {refused[job_id]}")
        else:
            said.append(f"{run.row.id}: cancelling job {job_id}")
    told = [*(run for job_id, run in to_slurm.items() if job_id not in refused), *ours]
    _wait_until_saved(told)
    with launcher_lock(root):
        for run in [*told, *given_up]:
            status = run.record.status()
            if status.state in ("submitted", "running", "requeued") and not run.is_done and not run.record.is_locked:
                run.record.set_status(status.moved("cancelled", reason=REASON))
    return Cancelled(said, left)


def _still_there(refused: Mapping[str, str]) -> Mapping[str, str]:
    """Of the jobs that Slurm has not cancelled those that it still has, as far as it can be asked."""
    if not refused:
        return refused
    try:
        jobs = slurm.everybodys_queue()
    except UserError:
        return refused
    return {job_id: words for job_id, words in refused.items() if job_id in jobs}


def _taken_out_of_lines(runs: Sequence[PlannedRun], jobs: Mapping[str, slurm.Job] | None, root: Path) -> list[str]:
    """Cancel what waits in the line of a launch, on whatever machine: it looks at the record before it starts a run."""
    in_line = [run for run in runs if _is_in_a_line(run, jobs)]
    if not in_line:
        return []
    said = []
    with launcher_lock(root):
        for run in in_line:
            # Where an attempt has the lock, it is at work, or will be in a moment.
            with suppress(Timeout), FileLock(run.record.path / "lock").acquire(timeout=0):
                if _is_in_a_line(run, jobs):
                    status = run.record.status().taken_back()
                    run.record.set_status(replace(status, state="cancelled", reason=REASON))
                    said.append(f"{run.row.id}: taken out of the line of a launch")
    return said


def _is_in_a_line(run: PlannedRun, jobs: Mapping[str, slurm.Job] | None) -> bool:
    status = run.record.status()
    is_handed_out = status.state == "submitted" and status.pid is not None and not run.is_done
    return is_handed_out and why_alive(run.record, status, jobs, time.time()) is not None


def _wait_until_saved(runs: Sequence[PlannedRun]) -> None:
    until = time.monotonic() + SAVE_WAIT_S
    while any(run.record.is_locked for run in runs) and time.monotonic() < until:
        time.sleep(0.25)

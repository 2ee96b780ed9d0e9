"""When a Slurm task may start again, and when it asks Slurm to start it again."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from repro.errors import UserError
from repro.launch import slurm
from repro.runs.record import Record
from repro.runs.status import MAX_ATTEMPTS


@dataclass(frozen=True)
class RequeuePolicy:
    """Limits of a task. `max_attempts` counts starts in a row without progress; progress resets it (`Heartbeat`)."""

    requeue: bool = True
    max_requeues: int = 0
    max_attempts: int = MAX_ATTEMPTS

    def count_start(self, record: Record) -> bool:
        """Count a start that Slurm made by itself, as a launch counts its own; returns whether the task may continue.

        Slurm requeues without end what crashes its node, or is preempted before its first update.
        """
        if not restarts():
            return True
        if self._has_no_progress(record):
            return False
        status = record.status()
        if restarts() > self.max_requeues:
            reason = f"Slurm has requeued its job {restarts()} times (launcher.max_requeues); launch again"
            print(f"not started: {reason}", file=sys.stderr, flush=True)
            record.set_status(status.moved("requeued", reason=reason))
            return False
        record.set_status(status.moved(status.state, submissions=status.submissions + 1))
        return True

    def after_stop(self, record: Record, job_id: str, attempt: int | None) -> None:
        """Requeue the job of an attempt that was stopped, unless it was cancelled or a newer attempt has the run.

        A signal does not tell its cause (`scancel` and a preemption both send SIGTERM), so Slurm is asked. If it does
        not answer, the run stays `requeued`, and the next launch submits it again.
        """
        if (attempt is not None and record.latest_attempt() != attempt) or record.status().state == "cancelled":
            return
        try:
            job = slurm.own_job(job_id)
            print(f"job {job_id}: {job.state}, requeued {job.restarts - restarts()} times since this start", flush=True)
            if job.state == "RUNNING":
                if self.requeue and restarts() < self.max_requeues and not self._has_no_progress(record):
                    slurm.requeue(job_id)
            elif job.has_ended_for_good(restarts()):  # a requeue would restart a cancelled job
                reason = "its job was ended by scancel, or by a time limit without a warning; launch again"
                record.set_status(record.status().moved("cancelled", reason=reason))
        except (OSError, UserError, ValueError) as error:
            print(f"not requeued: {error}; the next launch submits this run again", file=sys.stderr, flush=True)

    def _has_no_progress(self, record: Record) -> bool:
        """Whether another start would exceed `max_attempts`; the run is failed then."""
        status = record.status()
        if status.submissions < self.max_attempts:
            return False
        reason = (
            f"started {status.submissions} times without progress beyond update {status.update}: its time limit is too "
            "short (launcher.time_min), or it crashes its node; see its logs, then use --retry"
        )
        print(f"not started: {reason}", file=sys.stderr, flush=True)
        record.set_status(status.moved("failed", reason=reason))
        return True


def restarts() -> int:
    """How often Slurm has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))

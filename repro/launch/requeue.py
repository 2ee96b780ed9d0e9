"""When a Slurm task may start again, and when it requeues its own job."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from repro.errors import UserError
from repro.launch import slurm
from repro.runs.record import Record
from repro.runs.status import MAX_ATTEMPTS


@dataclass(frozen=True)
class RequeuePolicy:
    """The limits on restarts of a task.

    Attributes:
        requeue: Whether a task that is stopped requeues its job.
        max_requeues: Maximum number of requeues of one job.
        max_attempts: Maximum number of consecutive starts without progress. Progress resets the count (`Heartbeat`).
    """

    requeue: bool = True
    max_requeues: int = 0
    max_attempts: int = MAX_ATTEMPTS

    def count_start(self, record: Record) -> bool:
        """Count a restart by Slurm, as a launch counts its submissions; return whether the task may continue.

        Without this limit, Slurm would requeue a job forever if it crashes its node or is always preempted before its
        first update.
        """
        restarts = slurm.restart_count()
        if not restarts:
            return True
        if self._has_no_progress(record):
            return False
        status = record.status()
        if restarts > self.max_requeues:
            reason = f"Slurm has requeued its job {restarts} times (launcher.max_requeues); launch again"
            print(f"not started: {reason}", file=sys.stderr, flush=True)
            record.set_status(status.moved("requeued", reason=reason))
            return False
        record.set_status(status.moved(status.state, submissions=status.submissions + 1))
        return True

    def after_stop(self, record: Record, job_id: str, attempt: int | None) -> None:
        """Requeue the job of a stopped attempt, unless it was cancelled or a newer attempt has claimed the run.

        The signal does not reveal its cause (`scancel` and a preemption both send SIGTERM), so this asks Slurm for the
        state of the job. If Slurm does not answer, the run stays `requeued`, and the next launch submits it again.
        """
        if (attempt is not None and record.latest_attempt() != attempt) or record.status().state == "cancelled":
            return
        try:
            job, restarts = slurm.own_job(job_id), slurm.restart_count()
            print(f"job {job_id}: {job.state}, requeued {job.restarts - restarts} times since this start", flush=True)
            if job.state == "RUNNING":
                if self.requeue and restarts < self.max_requeues and not self._has_no_progress(record):
                    slurm.requeue(job_id)
            elif job.has_ended_for_good(restarts):  # a requeue would restart a cancelled job
                reason = "its job was ended by scancel, or by a time limit without a warning; launch again"
                record.set_status(record.status().moved("cancelled", reason=reason))
        except (OSError, UserError, ValueError) as error:
            print(f"not requeued: {error}; the next launch submits this run again", file=sys.stderr, flush=True)

    def _has_no_progress(self, record: Record) -> bool:
        """Return whether another start would exceed `max_attempts`; if so, mark the run as failed."""
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

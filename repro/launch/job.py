"""What submitit pickles and a job executes: one run, known by its folder. Imports no torch until it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import submitit
from submitit.helpers import Checkpointable, DelayedSubmission

from repro.launch import slurm
from repro.launch.rendezvous import environment
from repro.runs.record import Record
from repro.runs.sharing import share_as
from repro.runs.status import EXIT_STOPPED, MAX_ATTEMPTS


class RunJob(Checkpointable):  # type: ignore[misc]
    """One run as a job.

    It holds the run's folder and nothing else. After a node failure Slurm runs the pickle of the first submission
    again, so a checkpoint's path in it would be an old one: the attempt looks on disk.
    """

    def __init__(
        self, path: Path, requeue: bool = True, max_requeues: int = 0, max_attempts: int = MAX_ATTEMPTS
    ) -> None:
        self.path, self.requeue, self.max_requeues = path.absolute(), requeue, max_requeues
        self.max_attempts = max_attempts

    def checkpoint(self) -> DelayedSubmission:
        """What to run after a requeue: the same. submitit looks for this method on the class, and asks before torch
        is imported or after training only; in between, the training takes the signals and saves."""
        return DelayedSubmission(RunJob(self.path, self.requeue, self.max_requeues, self.max_attempts))

    def __call__(self) -> None:
        """Execute an attempt; exits with its code, so that Slurm, `sacct` and `afterok` know the truth."""
        share_as(self.path)
        job = submitit.JobEnvironment()
        on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        _remove_half_written(job)
        os.environ.update(
            environment(job.global_rank, job.local_rank, job.num_tasks, job.num_nodes, job.hostnames, job.raw_job_id)
        )
        record = Record(self.path)
        attempt = None
        if job.global_rank == 0 and record.result() is None:
            from repro.launch.inline import output_into

            attempt = record.claim_attempt()
            folder = record.attempt_dir(attempt)
            (folder / "job").write_text(f"{job.job_id}\n{job.paths.stdout}\n{job.paths.stderr}\n", encoding="utf-8")
            sys.stdout.flush()
            output_into(folder)
            if on_slurm and _restarts():
                self._count_restart(record)
        from repro.training.task import execute

        code = execute(self.path, attempt, job.job_id if on_slurm else f"local-{job.job_id}")
        sys.stdout.flush()
        if code == EXIT_STOPPED and job.global_rank != 0:
            code = 0  # the first rank speaks for all; a non-zero exit here would have srun kill it while it requeues
        if code == EXIT_STOPPED and on_slurm:
            # Not the raw number: that of one task of an array is the number of the whole array.
            self._after_stop(record, job.job_id, attempt)
        if code:
            sys.exit(code)

    def _count_restart(self, record: Record) -> None:
        """Count a start that Slurm made by itself, as a launch counts its own; exits where there have been too many.

        Slurm requeues for ever what takes its node down, or is preempted before its first update. Getting further
        begins the count anew (`Heartbeat.progress`). The other ranks are ended with this one (`--kill-on-bad-exit`).
        """
        from repro.training.task import EXIT_FAILED

        if self._is_in_vain(record):
            sys.exit(EXIT_FAILED)
        status = record.status()
        if _restarts() > self.max_requeues:
            why = f"Slurm has requeued its job {_restarts()} times (launcher.max_requeues); launch goes on with it"
            print(f"not started again: {why}", file=sys.stderr, flush=True)
            record.set_status(status.moved("requeued", reason=why))
            sys.exit(EXIT_STOPPED)
        record.set_status(status.moved(status.state, submissions=status.submissions + 1))

    def _is_in_vain(self, record: Record) -> bool:
        """Whether a further start would be one too many without getting further; the run has failed then."""
        status = record.status()
        if status.submissions < self.max_attempts:
            return False
        why = (
            f"started {status.submissions} times without getting further than update {status.update}: its time is too "
            "short (launcher.time_min), or its node dies of it; see its logs, then --retry"
        )
        print(f"not started again: {why}", file=sys.stderr, flush=True)
        record.set_status(status.moved("failed", reason=why))
        return True

    def _after_stop(self, record: Record, job_id: str, attempt: int | None) -> None:
        """Requeue this job, unless somebody cancelled it or its run, or a newer attempt has the run.

        A signal does not say why it came (`scancel` and a preemption both send SIGTERM): Slurm is asked. Where it does
        not answer the run stays `requeued` in its status, and the next launch submits it again.
        """
        if (attempt is not None and record.latest_attempt() != attempt) or record.status().state == "cancelled":
            return
        try:
            job = slurm.own_job(job_id)
            restarts = _restarts()
            print(f"Slurm says {job.state}, {job.restarts - restarts} requeues since this start", flush=True)
            if job.state == "RUNNING":
                if self.requeue and restarts < self.max_requeues and not self._is_in_vain(record):
                    slurm.requeue(job_id)
            elif job.has_ended_for_good(restarts):
                # A requeue here would bring a cancelled job back.
                why = "its job was ended: scancel, or a time limit without a warning; launch goes on with it"
                record.set_status(record.status().moved("cancelled", reason=why))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            print(f"not requeued: {error}; the next launch submits this run again", file=sys.stderr, flush=True)


def _restarts() -> int:
    """How often Slurm had started this job before this time."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def _remove_half_written(job: submitit.JobEnvironment) -> None:
    """A task that was killed while submitit wrote a pickle leaves `*.save_tmp`, over which the next one would fall."""
    if job.global_rank == 0:
        for path in (job.paths.submitted_pickle, job.paths.result_pickle):
            path.with_name(path.name + ".save_tmp").unlink(missing_ok=True)

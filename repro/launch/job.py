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


class RunJob(Checkpointable):  # type: ignore[misc]
    """One run as a job.

    It holds the run's folder and nothing else. After a node failure Slurm runs the pickle of the first submission
    again, so a checkpoint's path in it would be an old one: the attempt looks on disk.
    """

    def __init__(self, path: Path, requeue: bool = True, max_requeues: int = 0) -> None:
        self.path, self.requeue, self.max_requeues = path.absolute(), requeue, max_requeues

    def checkpoint(self) -> DelayedSubmission:
        """What to run after a requeue: the same. submitit looks for this method on the class, and asks before torch
        is imported or after training only; in between, the training takes the signals and saves."""
        return DelayedSubmission(RunJob(self.path, self.requeue, self.max_requeues))

    def __call__(self) -> None:
        """Execute an attempt; exits with its code, so that Slurm, `sacct` and `afterok` know the truth."""
        share_as(self.path)
        job = submitit.JobEnvironment()
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
        from repro.training.task import EXIT_STOPPED, execute

        on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        code = execute(self.path, attempt, job.job_id if on_slurm else f"local-{job.job_id}")
        sys.stdout.flush()
        if code == EXIT_STOPPED and job.global_rank != 0:
            code = 0  # the first rank speaks for all; a non-zero exit here would have srun kill it while it requeues
        if code == EXIT_STOPPED and on_slurm:
            # Not the raw number: that of one task of an array is the number of the whole array.
            self._after_stop(record, job.job_id, attempt)
        if code:
            sys.exit(code)

    def _after_stop(self, record: Record, job_id: str, attempt: int | None) -> None:
        """Requeue this job, unless somebody cancelled it or a newer attempt has the run.

        A signal does not say why it came (`scancel` and a preemption both send SIGTERM): Slurm is asked. Where it does
        not answer the run stays `requeued` in its status, and the next launch submits it again.
        """
        if attempt is not None and record.latest_attempt() != attempt:
            return
        try:
            job = slurm.own_job(job_id)
            restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
            print(f"Slurm says {job.state}, {job.restarts - restarts} requeues since this start", flush=True)
            if job.state == "RUNNING":
                if self.requeue and restarts < self.max_requeues:
                    slurm.requeue(job_id)
            elif job.has_ended_for_good(restarts):
                # A requeue here would bring a cancelled job back.
                why = "its job was ended: scancel, or a time limit without a warning; launch goes on with it"
                record.set_status(record.status().moved("cancelled", reason=why))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            print(f"not requeued: {error}; the next launch submits this run again", file=sys.stderr, flush=True)


def _remove_half_written(job: submitit.JobEnvironment) -> None:
    """A task that was killed while submitit wrote a pickle leaves `*.save_tmp`, over which the next one would fall."""
    if job.global_rank == 0:
        for path in (job.paths.submitted_pickle, job.paths.result_pickle):
            path.with_name(path.name + ".save_tmp").unlink(missing_ok=True)

"""A task of a Slurm array: `python -m repro.launch.task <runs>/.launch/arrays/<token>.json` executes one run.

Slurm may start a task again after a requeue or a node failure; the attempt then resumes from the checkpoint on disk.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.interruption import SIGNALS
from repro.launch.local_run import redirect_output
from repro.launch.manifest import Manifest, read_manifest
from repro.launch.rendezvous import task_environment
from repro.runs.permissions import adopt_group_umask
from repro.runs.record import Record
from repro.runs.status import EXIT_STOPPED


def main() -> None:
    """Execute the task of this process, and exit with its exit code, which `sacct` and `afterok` rely on."""
    # Signals stay pending until the training installs its handlers. Before and after the training, they must not kill a
    # task that is saving or requeuing.
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    path = Path(sys.argv[1])
    root = path.parents[2]
    manifest = read_manifest(root, path.stem)
    if manifest is None:
        raise UserError(f"{path}: no such manifest")
    from submitit.slurm.slurm import SlurmJobEnvironment

    code = run_task(manifest, root, SlurmJobEnvironment())
    sys.stdout.flush()
    sys.exit(code)


def run_task(manifest: Manifest, root: Path, job: Any) -> int:
    """Execute one rank of a task and return its exit code; `job` is submitit's `SlurmJobEnvironment`."""
    record = manifest.record(root, int(job.array_task_id or 0))
    adopt_group_umask(record.path)
    print(f"job {job.job_id}, rank {job.global_rank} of {job.num_tasks} on {job.hostname}: {record.path}", flush=True)
    os.environ.update(
        task_environment(job.global_rank, job.local_rank, job.num_tasks, job.num_nodes, job.hostnames, job.raw_job_id)
    )
    attempt = None
    if job.global_rank == 0 and record.result() is None:
        if not may_start(manifest, record):
            return EXIT_STOPPED  # srun then kills the other ranks (`--kill-on-bad-exit`)
        attempt = _claim(record, manifest, job.job_id)
    from repro.training.attempt import execute

    code = execute(record.path, attempt, job.job_id)
    if code == EXIT_STOPPED and job.global_rank != 0:
        return 0  # with any other exit code, srun would kill rank 0 while it requeues the job
    if code == EXIT_STOPPED:
        # `16_3`, not the raw job id: the raw id of an array task may be that of the whole array.
        manifest.policy.after_stop(record, job.job_id, attempt)
    return code


def may_start(manifest: Manifest, record: Record) -> bool:
    """Return whether a task may start its run: no later launch has submitted the run, and it has starts left."""
    array = record.status().array
    if array != manifest.token:
        print(f"not started: a later launch has submitted this run in array {array}", file=sys.stderr, flush=True)
        return False
    return manifest.policy.count_start(record)


def _claim(record: Record, manifest: Manifest, job_id: str) -> int:
    """Claim an attempt, record its job, and redirect the output of this process to the attempt's folder."""
    attempt = record.claim_attempt()
    folder = record.attempt_dir(attempt)
    (folder / "job").write_text(f"{job_id}\n{manifest.token}\n", encoding="utf-8")
    sys.stdout.flush()
    redirect_output(folder)
    return attempt


if __name__ == "__main__":
    main()

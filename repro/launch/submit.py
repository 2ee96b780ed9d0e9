"""Submits runs to Slurm.

A launch may die at any moment without losing track of a job. Before it calls sbatch, it marks the records as
`submitted` and writes a manifest of the array's runs. Once sbatch has accepted the array, the job's name in Slurm's
queue identifies the manifest, and every task can run, even if nothing else is written.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from repro.config import SlurmLauncher
from repro.errors import UserError, count_of
from repro.launch import slurm
from repro.launch.arrays import Array, group_into_arrays, share_parallelism
from repro.launch.manifest import Manifest, log_folder, manifest_path
from repro.launch.plan import PlannedRun
from repro.launch.queue import Queue
from repro.launch.requeue import RequeuePolicy
from repro.launch.slurm_parameters import chunk_size, executor_parameters, python_command
from repro.runs.record import Record


class ArrayExecutor(submitit.SlurmExecutor):  # type: ignore[misc]
    """Submits an array of tasks that all execute one command.

    submitit's own tasks load a pickle that is written only after sbatch has returned, so a launch that dies in between
    would leave tasks that cannot run.
    """

    def submit_tasks(self, command: str, count: int) -> str:
        """Submit an array of `count` tasks, or a plain job for one task, and return the job's id."""
        if count > 1:
            self.parameters["map_count"] = count
        self.folder.mkdir(parents=True, exist_ok=True)
        return str(self._submit_command(command).job_id)


def submit(runs: Sequence[PlannedRun], launcher: SlurmLauncher, root: Path, queue: Queue, max_attempts: int) -> int:
    """Submit runs as arrays, those that others start from first, and return the number of arrays.

    The caller must hold the launch lock and have created the records. Raises `UserError` with sbatch's message if Slurm
    refuses an array; the arrays before it stay submitted.
    """
    policy = RequeuePolicy(launcher.requeue, launcher.max_requeues, max_attempts)
    arrays = group_into_arrays(runs, chunk_size(launcher, slurm.configuration()))
    slots = share_parallelism([len(array.runs) for array in arrays], launcher.parallel)
    jobs: dict[Path, str] = {}  # by record
    submitted = {run.record.path for run in runs}
    for array in arrays:
        if array.origin is not None and array.origin not in submitted and _job_in_queue(array.origin, queue) is None:
            row = array.runs[0].row.id
            raise UserError(f"{row}: starts from a run that Slurm does not have; launch again when that run is done")
    for array, slot in zip(arrays, slots, strict=True):
        dependencies = []
        if array.origin is not None:
            dependencies.append(f"afterok:{jobs.get(array.origin) or _job_in_queue(array.origin, queue)}")
        if slot.after is not None:  # without a task index, this waits for all tasks of that array, however they end
            dependencies.append(f"afterany:{jobs[arrays[slot.after].runs[0].record.path].partition('_')[0]}")
        jobs |= _submit_array(array, launcher, root, dependencies, slot.parallel, policy)
    return len(arrays)


def _job_in_queue(record: Path, queue: Queue) -> str | None:
    job = queue.job_of(Record(record), Record(record).status())
    return None if job is None else job.id


def _submit_array(
    array: Array,
    launcher: SlurmLauncher,
    root: Path,
    dependencies: Sequence[str],
    parallel: int,
    policy: RequeuePolicy,
) -> dict[Path, str]:
    """Submit one array; return the job id of each record."""
    records = [run.record for run in array.runs]
    manifest = Manifest.create(root, array.runs[0].row.table, records, policy)
    executor = ArrayExecutor(log_folder(root, manifest.token), python=python_command(launcher))
    executor.update_parameters(**executor_parameters(launcher, manifest.job_name, dependencies, parallel))
    path = manifest_path(root.absolute(), manifest.token)
    command = f"{python_command(launcher)} -u -m repro.launch.task {shlex.quote(str(path))}"
    before = [record.status() for record in records]
    # A run that waits for another one may never start, so its submission does not count as a start without progress.
    is_start = array.origin is None
    for record, status in zip(records, before, strict=True):
        record.set_status(status.submitted(is_start=is_start, array=manifest.token))
    try:
        with _environment(slurm.environment()):
            job_id = executor.submit_tasks(command, len(records))
    except (subprocess.CalledProcessError, FailedJobError, FailedSubmissionError, OSError) as error:
        text = str(getattr(error, "stderr", None) or error).strip()
        message = f"sbatch: {(text.splitlines() or ['failed'])[-1]}"
        if isinstance(error, FailedSubmissionError | OSError) or not _is_refusal(text, manifest.job_name):
            raise UserError(
                f"{message}; Slurm may have accepted {count_of(len(records), 'run')}: launch again in two minutes"
            ) from None
        for record, status in zip(records, before, strict=True):
            record.set_status(status)
        path.unlink()
        raise UserError(message) from None
    manifest = manifest.with_job_id(root, job_id)
    return {record.path: manifest.task_id(index) or job_id for index, record in enumerate(records)}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Hide all other environment variables during the block, since submitit passes those of this process to sbatch."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name not in variables}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _is_refusal(message: str, job_name: str) -> bool:
    """Return whether sbatch has certainly submitted nothing, judging by its message and by the queue."""
    if slurm.NO_ANSWER.search(message):
        return False
    try:
        return all(job.name != job_name for job in slurm.queue().values())
    except UserError:
        return False

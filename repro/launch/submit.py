"""Handing runs to Slurm so that a crash at any moment neither loses a job nor starts a run twice.

Before sbatch a token file names the runs of an array; the token is also in the job's name. When the ids are on disk the
token goes. A launch that finds a token finds a launch that died in between: it looks for the token in the queue, takes
over the tasks whose pickles are in place and cancels the others.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from repro.config import SlurmLauncher
from repro.errors import UserError
from repro.launch import slurm
from repro.launch.plan import PlannedRun
from repro.launch.request import chunk_size, parameters, python
from repro.runs.files import read_json, write_json
from repro.runs.record import Record

FOLDER = ".launch"


def jobs_folder(root: Path) -> Path:
    """Where submitit keeps scripts, pickles and logs. Fixed: `%A_%a` in a folder's name submits, and then raises."""
    return root.absolute() / FOLDER / "jobs"


def submit(runs: Sequence[PlannedRun], launcher: SlurmLauncher, root: Path) -> int:
    """Submit runs as arrays of identical requests, those that others begin with first; returns the number of arrays.

    The caller holds the launcher's lock and has created the records. Raises `UserError` with sbatch's words where Slurm
    takes no more; what was submitted before stays submitted.
    """
    limit = chunk_size(launcher, slurm.configuration())
    # Asked once: a run that ends while this submits must not fall between the two.
    waiting = [run for run in runs if run.starts_from is not None and not run.starts_from.is_done]
    paths = {run.record.path for run in waiting}
    now = [run for run in runs if run.record.path not in paths]
    arrays = 0
    ids: dict[Path, str] = {}
    for start in range(0, len(now), limit):
        ids |= _submit_array(now[start : start + limit], launcher, root, None)
        arrays += 1
    while waiting:
        # Those first that nobody else of them waits for: a job can only wait for one that has a number.
        behind = [run for run in waiting if run.starts_from is not None and run.starts_from.record.path in paths]
        paths = {run.record.path for run in behind}
        for after, group in _by_origin([run for run in waiting if run.record.path not in paths], ids).items():
            for start in range(0, len(group), limit):
                ids |= _submit_array(group[start : start + limit], launcher, root, after)
                arrays += 1
        waiting = behind
    return arrays


def _by_origin(runs: Sequence[PlannedRun], ids: Mapping[Path, str]) -> dict[str, list[PlannedRun]]:
    """Runs by the job that they wait for: one of `ids`, just submitted, or one that an earlier launch submitted."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        assert run.starts_from is not None
        origin = run.starts_from.record
        job_id = ids.get(origin.path) or origin.status().job_id or ""
        if not job_id[:1].isdigit():  # at work on this machine: `local-...`, or in no job at all
            raise UserError(f"{run.row.id}: begins with a run that is not in Slurm; launch again when it is done")
        groups.setdefault(job_id, []).append(run)
    return groups


def _submit_array(
    runs: Sequence[PlannedRun], launcher: SlurmLauncher, root: Path, after: str | None
) -> dict[Path, str]:
    """Submit one array; returns the job of each record."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from repro.launch.job import RunJob

    token = uuid.uuid4().hex[:12]
    file = root / FOLDER / "tokens" / f"{token}.json"
    executor = submitit.SlurmExecutor(jobs_folder(root), launcher.max_requeues, python=python(launcher))
    executor.update_parameters(**parameters(launcher, job_name(runs[0].row.table, token), after))
    # The list is built before anything is submitted: an exception within submitit's `batch()` drops all of it.
    tasks = [RunJob(run.record.path, launcher.requeue, launcher.max_requeues) for run in runs]
    write_json(file, {"runs": [os.path.relpath(run.record.path, root) for run in runs]})
    before = [run.record.status() for run in runs]
    for run, status in zip(runs, before, strict=True):
        run.record.set_status(
            status.moved("submitted", submissions=status.submissions + 1, job_id=None, pid=None, host=None, reason=None)
        )
    try:
        submitted = executor.submit_array(tasks)
    except (subprocess.CalledProcessError, FailedJobError, FailedSubmissionError) as error:
        for run, status in zip(runs, before, strict=True):
            run.record.set_status(status)
        file.unlink()
        words = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise UserError(f"sbatch: {words[-1] if words else 'failed'}") from None
    for run, job in zip(runs, submitted, strict=True):
        _note_id(run.record, job.job_id)
    file.unlink()
    return {run.record.path: job.job_id for run, job in zip(runs, submitted, strict=True)}


def job_name(table: str, token: str) -> str:
    """The name of a job, as squeue shows it."""
    return f"repro-{table}-{token}"


def _note_id(record: Record, job_id: str) -> None:
    """Write the id into the status, unless the job has begun and done so itself. Its lock tells."""
    lock = FileLock(record.path / "lock")
    try:
        with lock.acquire(timeout=0):
            status = record.status()
            if status.state == "submitted":
                record.set_status(status.moved("submitted", job_id=job_id))
    except Timeout:
        return  # it runs


def mend(root: Path, jobs: Mapping[str, slurm.Job]) -> list[str]:
    """Clear up after a launch that died between sbatch and the ids on disk; returns a line for each array of it."""
    lines = []
    for file in sorted((root / FOLDER / "tokens").glob("*.json")):
        paths = [root / place for place in (read_json(file) or {"runs": []})["runs"]]
        found = sorted(job.id for job in jobs.values() if job.name.endswith(f"-{file.stem}"))
        lost = []
        for id_ in found:
            index = int(id_.partition("_")[2] or 0)
            if (jobs_folder(root) / f"{id_}_submitted.pkl").exists() and index < len(paths):
                _note_id(Record(paths[index]), id_)
            else:
                lost.append(id_)
        slurm.cancel(lost)
        file.unlink()
        lines.append(
            f"a launch died while it submitted: {len(found) - len(lost)} of its jobs kept, {len(lost)} cancelled"
        )
    return lines

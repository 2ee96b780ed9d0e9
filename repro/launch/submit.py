"""Handing runs to Slurm so that a crash at any moment neither loses a job nor starts a run twice.

Before sbatch a token file names the runs of an array; the token is also in the job's name. When the ids are on disk the
token goes. A launch that finds a token finds a launch that died in between, or an sbatch that gave up waiting for an
answer: it looks for the token in the queue, takes over the tasks whose pickles are in place and cancels the others.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from repro.config import SlurmLauncher
from repro.errors import UserError
from repro.launch import slurm
from repro.launch.arrays import Array, arrays, places
from repro.launch.plan import PlannedRun
from repro.launch.request import chunk_size, parameters, python
from repro.runs.files import read_json, write_json
from repro.runs.record import Record
from repro.runs.sharing import may_act_for, name_of
from repro.runs.status import MAX_ATTEMPTS, STALE_AFTER_S, Status

FOLDER = ".launch"
NOTE_WAIT_S = 5.0


def jobs_folder(root: Path) -> Path:
    """Where submitit keeps scripts, pickles and logs. Fixed: `%A_%a` in a folder's name submits, and then raises."""
    return root.absolute() / FOLDER / "jobs"


def submit(runs: Sequence[PlannedRun], launcher: SlurmLauncher, root: Path, max_attempts: int = MAX_ATTEMPTS) -> int:
    """Submit runs as arrays of identical requests, those that others begin with first; returns the number of arrays.

    The caller holds the launcher's lock and has created the records. A job gives up after `max_attempts` starts in a
    row without getting further. Raises `UserError` with sbatch's words where Slurm takes no more; what was submitted
    before stays submitted.
    """
    every = arrays(runs, chunk_size(launcher, slurm.configuration()))
    ids: dict[Path, str] = {}
    for array in every:
        _check_origin(array, {run.record.path for run in runs})
    for array, place in zip(every, places([len(array.runs) for array in every], launcher.parallel), strict=True):
        dependencies = []
        if array.origin is not None:
            dependencies.append(f"afterok:{ids.get(array.origin) or Record(array.origin).status().job_id}")
        if place.after is not None:  # of all tasks of that array, however they end
            dependencies.append(f"afterany:{ids[every[place.after].runs[0].record.path].partition('_')[0]}")
        ids |= _submit_array(array.runs, launcher, root, dependencies, place.parallel, max_attempts)
    return len(every)


def _check_origin(array: Array, submitted: set[Path]) -> None:
    """Raise `UserError` where these runs would wait for one that is no job of Slurm's, and does not become one."""
    if array.origin is None or array.origin in submitted:
        return
    if not slurm.is_job_id(Record(array.origin).status().job_id):  # at work on this machine
        row = array.runs[0].row.id
        raise UserError(f"{row}: begins with a run that is not in Slurm; launch again when it is done")


def _submit_array(
    runs: Sequence[PlannedRun],
    launcher: SlurmLauncher,
    root: Path,
    dependencies: Sequence[str],
    parallel: int,
    max_attempts: int,
) -> dict[Path, str]:
    """Submit one array; returns the job of each record.

    A run that waits for another one may never start, through no fault of its own: that is not counted as a try.
    """
    counts = not any(dependency.startswith("afterok") for dependency in dependencies)
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from repro.launch.job import RunJob

    token = uuid.uuid4().hex[:12]
    name = job_name(runs[0].row.table, token)
    executor = submitit.SlurmExecutor(jobs_folder(root), launcher.max_requeues, python=python(launcher))
    executor.update_parameters(**parameters(launcher, name, dependencies, parallel))
    # The list is built before anything is submitted: an exception within submitit's `batch()` drops all of it.
    tasks = [RunJob(run.record.path, launcher.requeue, launcher.max_requeues, max_attempts) for run in runs]
    file = _token_file(root, token)
    places_of_runs = [os.path.relpath(run.record.path, root) for run in runs]
    write_json(file, {"runs": places_of_runs, "time": time.time(), "counts": counts, "user": os.getuid()})
    before = [run.record.status() for run in runs]
    for run, status in zip(runs, before, strict=True):
        run.record.set_status(
            status.moved(
                "submitted",
                submissions=status.submissions + counts,
                job_id=None,
                pid=None,
                host=None,
                reason=None,
                user=os.getuid(),
            )
        )
    try:
        with _environment(slurm.environment()):
            submitted = executor.submit_array(tasks)
    except (subprocess.CalledProcessError, FailedJobError, FailedSubmissionError, OSError) as error:
        text = str(getattr(error, "stderr", None) or error).strip()
        words = (text.splitlines() or ["failed"])[-1]
        if isinstance(error, FailedSubmissionError | OSError) or not _is_refused(text, name):
            raise UserError(
                f"sbatch: {words}; Slurm may have these {len(runs)} runs all the same: launch again, in two minutes at "
                "the latest it is known"
            ) from None
        for run, status in zip(runs, before, strict=True):
            run.record.set_status(status)
        file.unlink()
        raise UserError(f"sbatch: {words}") from None
    for run, job in zip(runs, submitted, strict=True):
        note_id(run.record, job.job_id)
    file.unlink()
    return {run.record.path: job.job_id for run, job in zip(runs, submitted, strict=True)}


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """This process's own environment for a while: submitit starts sbatch with it, and takes no other."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name not in wanted}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _is_refused(words: str, name: str) -> bool:
    """Whether it is certain that Slurm has no such job: it said no, and its queue says the same."""
    if slurm.NO_ANSWER.search(words):
        return False
    try:
        return all(job.name != name for job in slurm.queue().values())
    except UserError:
        return False


def _token_file(root: Path, token: str) -> Path:
    return root / FOLDER / "tokens" / f"{token}.json"


def token_owners(root: Path) -> set[int]:
    """Whose launches have died, or are at it, between sbatch and the ids on disk: the numbers of these users."""
    found = set()
    for file in _tokens(root):
        with suppress(FileNotFoundError):  # that launch has just got to its end
            found.add(_owner(file))
    return found


def _tokens(root: Path) -> list[Path]:
    return sorted(_token_file(root, "none").parent.glob("*.json"))


def _owner(token: Path) -> int:
    user = (read_json(token) or {}).get("user")
    return token.stat().st_uid if user is None else int(user)


def job_name(table: str, token: str) -> str:
    """The name of a job, as squeue shows it."""
    return f"{slurm.JOB_PREFIX}{table}-{token}"


def note_id(record: Record, job_id: str) -> None:
    """Write the id into the status, unless the job has begun and done so itself.

    A lock that is held says nothing alone: whoever looks at a run takes it for an instant. An attempt that has it says
    soon that it is running; where nobody does, an older one hangs, and the id must not be lost for that.
    """
    until = time.monotonic() + NOTE_WAIT_S
    lock = FileLock(record.path / "lock")
    while (status := record.status()).state == "submitted":
        try:
            with lock.acquire(timeout=0):
                status = record.status()
                if status.state == "submitted":
                    record.set_status(status.moved("submitted", job_id=job_id))
            return
        except Timeout:
            if time.monotonic() > until:
                record.set_status(status.moved("submitted", job_id=job_id))
                return
            time.sleep(0.02)


def mend(root: Path, jobs: Mapping[str, slurm.Job]) -> list[str]:
    """Clear up after a launch that died between sbatch and the ids on disk; returns a line for each array of it.

    The caller holds the launcher's lock. `jobs` is Slurm's queue, of the owners of all tokens too. A token of which the
    queue knows nothing is kept for two minutes: the controller may still be at it. Raises `UserError`, and keeps the
    token, where jobs have to be cancelled and are somebody else's, or Slurm does not do it.
    """
    lines = []
    for file in _tokens(root):
        token = read_json(file) or {"runs": []}
        records = [Record(root / place) for place in token["runs"]]
        age = time.time() - token.get("time", 0.0)
        found = sorted(job.id for job in jobs.values() if job.name.endswith(f"-{file.stem}"))
        if not found and abs(age) <= STALE_AFTER_S:
            lines.append(f"{len(records)} runs were handed to Slurm {age:.0f} s ago, and it has no job of them yet")
            continue
        lost = _take_over(records, found, jobs_folder(root), token.get("counts", True), _owner(file))
        file.unlink()
        lines.append(
            f"a launch died while it submitted: {len(found) - len(lost)} of its jobs kept, {len(lost)} cancelled"
        )
    return lines


def _take_over(records: Sequence[Record], job_ids: Sequence[str], pickles: Path, counts: bool, owner: int) -> list[str]:
    """Note the jobs that can run in the records of an array, cancel the others; returns those.

    `counts` is whether the submission had been counted as a try.
    """
    kept: dict[str, int] = {}
    lost: dict[str, int] = {}
    for id_ in job_ids:
        index = int(id_.partition("_")[2] or 0)
        whole = index < len(records) and (pickles / f"{id_}_submitted.pkl").exists()
        (kept if whole else lost)[id_] = index
    if lost and not may_act_for(owner):
        name = name_of(owner)
        raise UserError(
            f"a launch of {name}'s died while it submitted: {name} has to launch once, or an admin to cancel its jobs "
            f"(scancel {' '.join(lost)})"
        )
    for id_, index in kept.items():
        note_id(records[index], id_)
    if refused := slurm.cancel(list(lost)):
        raise UserError(
            f"a launch died while it submitted, and of its jobs {len(refused)} cannot be cancelled: "
            f"{next(iter(refused.values()))}; launch again"
        )
    for index in lost.values():
        status = records[index].status() if index < len(records) else Status()
        if status.state == "submitted":
            records[index].set_status(status.taken_back(counts))
    return list(lost)

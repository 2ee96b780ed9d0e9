"""Slurm's queue, and the run that each job in it executes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from repro.errors import UserError
from repro.launch import slurm
from repro.launch.manifest import read_manifest, token_of
from repro.launch.plan import PlannedRun
from repro.runs.record import Record
from repro.runs.status import Status


@dataclass(frozen=True)
class Queue:
    """The queue at the time `asked_at`, in Unix seconds.

    `jobs` holds the jobs by id, and `by_record` those of the runs folder `root` by the folder of their record.
    """

    jobs: Mapping[str, slurm.Job]
    by_record: Mapping[Path, slurm.Job]
    asked_at: float
    root: Path = Path()

    def job_of(self, record: Record, status: Status) -> slurm.Job | None:
        """Return the job of a run; None if the queue has none."""
        return self.by_record.get(record.path) or self.jobs.get(status.job_id or "")

    def has_lost(self, status: Status) -> bool:
        """Return whether sbatch has confirmed the submission of a run: its job, if not in the queue, has ended."""
        manifest = None if status.array is None else read_manifest(self.root, status.array)
        return manifest is not None and manifest.job_id is not None

    def is_newer_than(self, status: Status) -> bool:
        """Return whether the queue was read after this status was written."""
        return status.heartbeat <= self.asked_at


def read_queue(root: Path, users: Iterable[int]) -> Queue:
    """Read the jobs of this user and of `users` (uids). Raises `UserError` if Slurm does not answer."""
    asked_at = time.time()
    jobs = slurm.queue(users)
    return Queue(jobs, dict(_by_record(root, jobs)), asked_at, root)


def queue_of(runs: Iterable[PlannedRun]) -> Queue | None:
    """Read the queue for runs, at least one; return None if this machine has no Slurm, or Slurm does not answer."""
    if not slurm.is_available():
        return None
    runs = list(runs)
    with suppress(UserError):
        return read_queue(Path(runs[0].config.run.root), job_owners(runs))
    return None


def job_owners(runs: Iterable[PlannedRun]) -> set[int]:
    """Return the uids of the users whose jobs may execute these runs, since several users can share a runs folder."""
    owners = set()
    for run in runs:
        user = run.record.status().user
        if user is not None:
            owners.add(user)
        else:  # no record, or one of an earlier version
            with suppress(OSError):
                owners.add((run.record.path / "status.json").stat().st_uid)
    return owners


def _by_record(root: Path, jobs: Mapping[str, slurm.Job]) -> Iterable[tuple[Path, slurm.Job]]:
    manifests = {token: read_manifest(root, token) for token in {token_of(job.name) for job in jobs.values()}}
    for job in jobs.values():
        manifest = manifests[token_of(job.name)]
        if manifest is not None:
            yield manifest.record(root, int(job.id.partition("_")[2] or 0)).path, job

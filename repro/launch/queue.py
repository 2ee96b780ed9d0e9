"""Slurm's queue, and which run each job in it executes."""

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
    """The queue at `asked_at` (Unix seconds). `by_record` has the jobs of the runs folder `root`."""

    jobs: Mapping[str, slurm.Job]
    by_record: Mapping[Path, slurm.Job]
    asked_at: float
    root: Path = Path()

    def job_of(self, record: Record, status: Status) -> slurm.Job | None:
        """The job of a run; None if the queue has none."""
        return self.by_record.get(record.path) or self.jobs.get(status.job_id or "")

    def has_lost(self, status: Status) -> bool:
        """Whether a submitted run that has no job in this queue had one, which has ended: sbatch has confirmed it."""
        manifest = None if status.array is None else read_manifest(self.root, status.array)
        return manifest is not None and manifest.job_id is not None

    def knows(self, status: Status) -> bool:
        """Whether the queue is newer than this status."""
        return status.heartbeat <= self.asked_at


def read_queue(root: Path, users: Iterable[int]) -> Queue:
    """The jobs of this user and of `users`. Raises `UserError` if Slurm does not answer."""
    asked_at = time.time()
    jobs = slurm.queue(users)
    return Queue(jobs, dict(_by_record(root, jobs)), asked_at, root)


def queue_of(runs: Iterable[PlannedRun]) -> Queue | None:
    """The queue for some runs; None on a machine without Slurm, or whose Slurm does not answer."""
    if not slurm.is_here():
        return None
    runs = list(runs)
    root = Path(runs[0].config.run.root) if runs else Path()
    with suppress(UserError):
        return read_queue(root, job_owners(runs))
    return None


def job_owners(runs: Iterable[PlannedRun]) -> set[int]:
    """The users whose jobs may execute these runs: people who share a folder must know each other's jobs."""
    owners = set()
    for run in runs:
        user = run.record.status().user
        if user is not None:
            owners.add(user)
        else:  # a record of an earlier version, or none
            with suppress(OSError):
                owners.add((run.record.path / "status.json").stat().st_uid)
    return owners


def _by_record(root: Path, jobs: Mapping[str, slurm.Job]) -> Iterable[tuple[Path, slurm.Job]]:
    manifests = {token: read_manifest(root, token) for token in {token_of(job.name) for job in jobs.values()}}
    for job in jobs.values():
        manifest = manifests[token_of(job.name)]
        record = None if manifest is None else manifest.record(root, int(job.id.partition("_")[2] or 0))
        if record is not None:
            yield record.path, job

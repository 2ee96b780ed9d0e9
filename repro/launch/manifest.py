"""Manifests of Slurm arrays: `<runs>/.launch/arrays/<token>.json` names the record that each task executes.

A manifest is written before sbatch is called, and kept unless sbatch refuses the array. Its token is part of the job's
name, so a job in Slurm's queue identifies its run even if the launch dies right after sbatch. A task needs no other
file.
"""

from __future__ import annotations

import functools
import os
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from repro.files import write_json
from repro.launch.requeue import RequeuePolicy
from repro.launch.slurm import JOB_PREFIX
from repro.runs.record import Record
from repro.runs.validation import read_validated

LAUNCH_FOLDER = ".launch"


@dataclass(frozen=True)
class Manifest:
    """The manifest of one array."""

    token: str
    table: str
    runs: tuple[str, ...]  # record folders by task index, relative to the runs folder
    policy: RequeuePolicy
    submitted: float  # Unix seconds
    job_id: str | None = None  # None until sbatch returns

    @classmethod
    def create(cls, root: Path, table: str, records: Sequence[Record], policy: RequeuePolicy) -> Manifest:
        """Write and return the manifest of a new array, one task for each record."""
        runs = tuple(os.path.relpath(record.path, root) for record in records)
        manifest = cls(uuid.uuid4().hex[:12], table, runs, policy, time.time())
        write_json(manifest_path(root, manifest.token), asdict(manifest))
        return manifest

    def with_job_id(self, root: Path, job_id: str) -> Manifest:
        """Write the manifest with the id of the job, and return it."""
        manifest = replace(self, job_id=job_id)
        write_json(manifest_path(root, self.token), asdict(manifest))
        return manifest

    @property
    def job_name(self) -> str:
        """The name of the job in Slurm's queue."""
        return f"{JOB_PREFIX}{self.table}-{self.token}"

    def task_id(self, index: int) -> str | None:
        """Return the job id of a task: `16_3`, or `16` for an array of one task, which is submitted as a plain job."""
        return self.job_id if self.job_id is None or len(self.runs) == 1 else f"{self.job_id}_{index}"

    def record(self, root: Path, index: int) -> Record:
        """Return the record of a task."""
        return Record(root / self.runs[index])

    def index_of(self, root: Path, record: Record) -> int | None:
        """Return the task index of a record; None if the array does not have it."""
        run = os.path.relpath(record.path, root)
        return self.runs.index(run) if run in self.runs else None

    def logs(self, root: Path, index: int) -> list[Path]:
        """Return the logs of all ranks of a task: `16_3_0_log.out`, `16_3_0_log.err`, `16_3_1_log.out`."""
        task = r"\d+" if len(self.runs) == 1 else rf"\d+_{index}"
        pattern = re.compile(task + r"_\d+_log\.(out|err)")
        return sorted(file for file in log_folder(root, self.token).glob("*_log.*") if pattern.fullmatch(file.name))


def manifest_path(root: Path, token: str) -> Path:
    """Return the path of an array's manifest."""
    return root / LAUNCH_FOLDER / "arrays" / f"{token}.json"


def log_folder(root: Path, token: str) -> Path:
    """Return the absolute folder of an array's script and logs.

    Its name has no `%A` (the job's id), with which submitit would fail after sbatch has returned.
    """
    return root.absolute() / LAUNCH_FOLDER / "jobs" / token


def read_manifest(root: Path, token: str) -> Manifest | None:
    """Return the manifest of an array of this runs folder; None if there is none."""
    file = manifest_path(root, token)
    try:
        return _read(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@functools.lru_cache(maxsize=256)
def _read(file: Path, _: int) -> Manifest | None:
    """Read a manifest once for all runs of its array; the second argument is the file's modification time."""
    return read_validated(file, Manifest)


def token_of(job_name: str) -> str:
    """Return the token in the name of a job."""
    return job_name.rpartition("-")[2]

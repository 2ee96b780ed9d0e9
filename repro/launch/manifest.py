"""Manifests of Slurm arrays: `<runs>/.launch/arrays/<token>.json` names the record that each task executes.

A manifest is written before sbatch and stays for good; its token is part of the job's name. So Slurm's queue alone
tells which run a job belongs to, whatever happens to the launch after sbatch, and a task needs nothing else.
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

from pydantic import TypeAdapter

from repro.files import read_object, write_json
from repro.launch.requeue import RequeuePolicy
from repro.launch.slurm import JOB_PREFIX
from repro.runs.record import Record
from repro.runs.validation import validated

LAUNCH_FOLDER = ".launch"


@dataclass(frozen=True)
class Manifest:
    """One array. `runs` are the records by task index, relative to `root`; `job_id` is None until sbatch answers."""

    token: str
    table: str
    runs: tuple[str, ...]
    policy: RequeuePolicy
    submitted: float
    job_id: str | None = None

    @classmethod
    def create(cls, root: Path, table: str, records: Sequence[Record], policy: RequeuePolicy) -> Manifest:
        """Write the manifest of a new array."""
        runs = tuple(os.path.relpath(record.path, root) for record in records)
        manifest = cls(uuid.uuid4().hex[:12], table, runs, policy, time.time())
        write_json(manifest_path(root, manifest.token), asdict(manifest))
        return manifest

    def with_job_id(self, root: Path, job_id: str) -> Manifest:
        """Add the job's id."""
        manifest = replace(self, job_id=job_id)
        write_json(manifest_path(root, self.token), asdict(manifest))
        return manifest

    @property
    def job_name(self) -> str:
        """The name of the job in Slurm's queue."""
        return f"{JOB_PREFIX}{self.table}-{self.token}"

    def task_id(self, index: int) -> str | None:
        """The id of a task's job: `16_3`, or `16` for an array of one, which is submitted as a plain job."""
        return self.job_id if self.job_id is None or len(self.runs) == 1 else f"{self.job_id}_{index}"

    def record(self, root: Path, index: int) -> Record | None:
        """The record of a task."""
        return Record(root / self.runs[index]) if index < len(self.runs) else None

    def index_of(self, root: Path, record: Record) -> int | None:
        """The task index of a record."""
        run = os.path.relpath(record.path, root)
        return self.runs.index(run) if run in self.runs else None

    def logs(self, root: Path, index: int) -> list[Path]:
        """The logs of a task, of all its ranks and starts: `16_3_0_log.out`, `16_3_0_log.err`, `16_3_1_log.out`."""
        task = r"\d+" if len(self.runs) == 1 else rf"\d+_{index}"
        pattern = re.compile(task + r"_\d+_log\.(out|err)")
        return sorted(file for file in log_folder(root, self.token).glob("*_log.*") if pattern.fullmatch(file.name))


def manifest_path(root: Path, token: str) -> Path:
    """Where the manifest of an array is."""
    return root / LAUNCH_FOLDER / "arrays" / f"{token}.json"


def log_folder(root: Path, token: str) -> Path:
    """The folder of an array's script and logs, absolute. With `%A` in its name, submitit would fail after sbatch."""
    return root.absolute() / LAUNCH_FOLDER / "jobs" / token


def read_manifest(root: Path, token: str) -> Manifest | None:
    """The manifest of an array of this runs folder; None if there is none."""
    file = manifest_path(root, token)
    try:
        return _read(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@functools.lru_cache(maxsize=256)
def _read(file: Path, _: int) -> Manifest | None:
    """One read for all runs of an array; the second argument is the time of its last change."""
    found = read_object(file)
    return None if found is None else validated(file, _MANIFEST, found)


def token_of(job_name: str) -> str:
    """The token in the name of a job."""
    return job_name.rpartition("-")[2]


_MANIFEST = TypeAdapter(Manifest)

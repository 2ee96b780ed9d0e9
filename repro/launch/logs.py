"""The files that hold the output of a run."""

from __future__ import annotations

import re
from pathlib import Path

from repro.launch.manifest import LAUNCH_FOLDER, read_manifest
from repro.runs.record import Record

TAIL_BYTES = 64 * 1024


def log_files(record: Record, root: Path, attempt: int | None = None) -> list[Path]:
    """Return stdout and stderr of an attempt (None for the latest), and the logs of its Slurm job.

    The logs of the job hold the output of other ranks and of Slurm itself. If the latest job failed before it could
    claim an attempt, for example because the container is wrong, only its logs are returned.
    """
    folder = record.attempt_dir(record.latest_attempt() if attempt is None else attempt)
    job_id, token = _job(folder)
    latest = record.status().array
    if attempt is None and latest is not None and latest != token and (logs := _task_logs(record, root, latest)):
        return logs
    # stdout, stderr, then those of further ranks
    files = sorted(folder.glob("std*"), key=lambda file: (len(file.name), file.name == "stderr", file.name))
    if token is not None:
        return files + _task_logs(record, root, token)
    return files + (_earlier_job_logs(root, job_id) if job_id else [])


def tail(file: Path) -> list[str]:
    """Return the lines in the last 64 KiB of a file."""
    with file.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        return stream.read().decode(errors="replace").splitlines()


def _job(attempt_dir: Path) -> tuple[str | None, str | None]:
    """Return the job id and the array's token of an attempt. Earlier versions wrote the paths of logs for the token."""
    file = attempt_dir / "job"
    if not file.is_file():
        return None, None
    job_id, noted, *_ = file.read_text(encoding="utf-8").splitlines()
    return job_id, None if "/" in noted else noted


def _task_logs(record: Record, root: Path, token: str) -> list[Path]:
    manifest = read_manifest(root, token)
    index = None if manifest is None else manifest.index_of(root, record)
    return [] if manifest is None or index is None else manifest.logs(root, index)


def _earlier_job_logs(root: Path, job_id: str) -> list[Path]:
    """Return the logs of a job of an earlier version, which kept all logs in one folder."""
    pattern = re.compile(re.escape(job_id) + r"_\d+_log\.(out|err)")
    folder = root / LAUNCH_FOLDER / "jobs"
    return sorted(file for file in folder.glob(f"{job_id}_*") if pattern.fullmatch(file.name))

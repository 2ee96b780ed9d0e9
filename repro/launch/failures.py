"""Failed runs by cause: forty runs that lack the same file are one problem, not forty."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.launch.overview import Line
from repro.launch.submit import jobs_folder
from repro.runs.record import Record

TAIL_BYTES = 64 * 1024
ERROR = re.compile(r"[\w.]*(Error|Exception|Killed|slurmstepd[\w-]*: error)\b")


@dataclass(frozen=True)
class Cause:
    """Runs that failed alike: the first useful line of one of them, and the command that shows the rest."""

    line: str
    rows: tuple[str, ...]
    show: str


def causes(entries: Sequence[Line], root: Path, show: Callable[[str, int], str]) -> list[Cause]:
    """Failed and dead runs grouped by what they say, the most frequent cause first.

    `root` is the runs folder; `show` gives the command that shows the logs of a row and seed.
    """
    groups: dict[str, list[tuple[Line, str]]] = {}
    for entry in entries:
        if entry.state in ("failed", "dead"):
            text = first_useful_line(entry, root)
            groups.setdefault(_alike(text), []).append((entry, text))
    found = []
    for members in sorted(groups.values(), key=len, reverse=True):
        first, text = members[0]
        rows = tuple(dict.fromkeys(entry.row for entry, _ in members))
        found.append(Cause(text, rows, show(first.row, first.seed)))
    return found


def first_useful_line(entry: Line, root: Path) -> str:
    """What its status says; for a run that could say nothing, the last line of a traceback or of its stderr."""
    generic = entry.state == "dead" or "see its stderr" in (entry.reason or "")
    if not generic and entry.reason:
        return entry.reason.splitlines()[0]
    for file in log_files(Record(Path(entry.record)), root):
        if file.name.startswith("stderr") or file.suffix == ".err":
            lines = [line.strip() for line in tail(file) if line.strip()]
            errors = [line for line in lines if ERROR.match(line)]
            if errors or lines:
                return (errors or lines)[-1]
    return entry.reason or "died without a word"


def log_files(record: Record, root: Path, attempt: int | None = None) -> list[Path]:
    """stdout and stderr of an attempt (None: the latest), and submitit's logs of its job: other ranks, and Slurm.

    A job that died before it could claim an attempt (no such python, a wrong container) has left its words in those
    logs only: where the latest job has no attempt, they are what there is to see.
    """
    number = record.latest_attempt() if attempt is None else attempt
    folder = record.attempt_dir(number)
    noted = folder / "job"
    job_id = noted.read_text(encoding="utf-8").splitlines()[0] if noted.is_file() else None
    handed_to = (record.status().job_id or "").removeprefix("local-")
    if attempt is None and handed_to and handed_to != job_id:
        logs = job_logs(root, handed_to)
        if logs:
            return logs
    files = [file for file in (folder / "stdout", folder / "stderr") if file.is_file()]
    return files + (job_logs(root, job_id) if job_id else [])


def job_logs(root: Path, job_id: str) -> list[Path]:
    """What submitit keeps of all tasks of a job, and Slurm's own words: `16_3_0_log.out`, `16_3_0_log.err`, ..."""
    # 16_3 must not find 16_3's namesakes: the logs of 16 are 16_0_log, those of the array's first task 16_0_0_log.
    pattern = re.compile(re.escape(job_id) + r"_\d+_log\.(out|err)")
    return sorted(file for file in jobs_folder(root).glob(f"{job_id}_*") if pattern.fullmatch(file.name))


def tail(file: Path) -> list[str]:
    """The last lines of a file, however long it is."""
    with file.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        return stream.read().decode(errors="replace").splitlines()


def _alike(text: str) -> str:
    """What two failures of one cause have in common: numbers and paths of a run do not count."""
    return re.sub(r"\d+(\.\d+)?|/\S+", "#", text)

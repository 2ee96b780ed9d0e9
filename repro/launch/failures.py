"""Failed runs by cause: forty runs that lack the same file are one problem, not forty."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.launch.overview import Line
from repro.runs.record import Record

TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Cause:
    """Runs that failed alike: the first useful line of one of them, and the command that shows the rest."""

    line: str
    rows: tuple[str, ...]
    show: str


def causes(table: str, scale: str, entries: Sequence[Line]) -> list[Cause]:
    """Failed and dead runs grouped by what they say, the most frequent cause first."""
    groups: dict[str, list[tuple[Line, str]]] = {}
    for entry in entries:
        if entry.state in ("failed", "dead"):
            text = first_useful_line(entry)
            groups.setdefault(_alike(text), []).append((entry, text))
    found = []
    for members in sorted(groups.values(), key=len, reverse=True):
        first, text = members[0]
        seed = f" --seed {first.seed}" if first.seed else ""
        show = f"repro logs {table} {shlex.quote(first.row)} --scale {scale}{seed}"
        found.append(Cause(text, tuple(dict.fromkeys(entry.row for entry, _ in members)), show))
    return found


def first_useful_line(entry: Line) -> str:
    """What its status says; for a run that could say nothing, the last line of a traceback or of its stderr."""
    generic = entry.state == "dead" or "see its stderr" in (entry.reason or "")
    if not generic and entry.reason:
        return entry.reason.splitlines()[0]
    for file in log_files(Record(Path(entry.record))):
        if file.name.startswith("stderr") or file.suffix == ".err":
            lines = [line.strip() for line in tail(file) if line.strip()]
            errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Killed|slurmstepd: error)\b", line)]
            if errors or lines:
                return (errors or lines)[-1]
    return entry.reason or "died without a word"


def log_files(record: Record, attempt: int | None = None) -> list[Path]:
    """stdout and stderr of an attempt (None: the latest), and submitit's logs of its job: other ranks, and Slurm."""
    number = record.latest_attempt() if attempt is None else attempt
    folder = record.attempt_dir(number)
    files = [folder / "stdout", folder / "stderr"]
    job = folder / "job"
    if job.is_file():
        for line in job.read_text(encoding="utf-8").splitlines()[1:]:
            first = Path(line)
            kind = first.name.rpartition("_")[2]
            prefix = first.name.removesuffix(f"_0_{kind}")
            files += sorted(first.parent.glob(f"{prefix}_*_{kind}"))
    return [file for file in files if file.is_file()]


def tail(file: Path) -> list[str]:
    """The last lines of a file, however long it is."""
    with file.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        return stream.read().decode(errors="replace").splitlines()


def _alike(text: str) -> str:
    """What two failures of one cause have in common: numbers and paths of a run do not count."""
    return re.sub(r"\d+(\.\d+)?|/\S+", "#", text)

"""Groups failed runs by their error."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.launch.logs import log_files, tail
from repro.launch.status import RunStatus
from repro.runs.record import Record

ERROR = re.compile(r"[\w.]*(Error|Exception|Killed|slurmstepd[\w-]*: error)\b")


@dataclass(frozen=True)
class Failure:
    """The rows of runs with the same error, the error of the first run, and the command that shows its logs."""

    error: str
    rows: tuple[str, ...]
    command: str


def failures(statuses: Sequence[RunStatus], root: Path, command: Callable[[RunStatus], str]) -> list[Failure]:
    """Group failed and dead runs by error, the most frequent first.

    `command` returns the command that shows the logs of a run.
    """
    groups: dict[str, list[tuple[RunStatus, str]]] = {}
    for run in statuses:
        if run.state in ("failed", "dead"):
            error = error_of(run, root)
            key = re.sub(r"\d+(\.\d+)?|/\S+", "#", error)  # numbers and paths differ between runs
            groups.setdefault(key, []).append((run, error))
    found = []
    for members in sorted(groups.values(), key=len, reverse=True):
        first, error = members[0]
        rows = tuple(dict.fromkeys(run.row for run, _ in members))
        found.append(Failure(error, rows, command(first)))
    return found


def error_of(run: RunStatus, root: Path) -> str:
    """Return the reason in a run's status or, if it could not write one, the last error in its stderr."""
    has_reason = run.state != "dead" and "see its stderr" not in (run.reason or "")
    if has_reason and run.reason:
        return run.reason.splitlines()[0]
    for file in log_files(Record(Path(run.record)), root):
        if file.name.startswith("stderr") or file.suffix == ".err":
            lines = [line.strip() for line in tail(file) if line.strip()]
            errors = [line for line in lines if ERROR.match(line)]
            if errors or lines:
                return (errors or lines)[-1]
    return run.reason or "no output"

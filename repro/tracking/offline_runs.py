"""W&B runs read from offline files with the client's own reader, for users who have the mirror but not the records.

A run has the same form as one from a server, so that `pull` can convert it into a record with all its checks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.tracking.pull import RemoteRun

_TIMEOUT_S = 120
_READERS = 2  # processes


@dataclass(frozen=True)
class OfflineRun:
    """A run: config and summary as on a server, and all lines of its history in order."""

    remote: RemoteRun
    history: tuple[dict[str, Any], ...]


def offline_runs_below(folder: Path, ids: Sequence[str] = ("*",)) -> list[OfflineRun]:
    """Read the runs whose offline files are under `folder`, merging the segments of a run's attempts.

    Args:
        ids: shell-style patterns of run ids (`table1-deit_small-*`); reading a file takes about a second.

    Raises `UserError` if there are no such runs, and for a file that the client cannot read.
    """
    segments: dict[str, list[Path]] = {}
    for log in sorted(folder.glob("**/offline-run-*/run-*.wandb")):
        run_id = log.stem.removeprefix("run-")
        if any(fnmatchcase(run_id, pattern) for pattern in ids):
            segments.setdefault(run_id, []).append(log)
    if not segments:
        raise UserError(
            f"{folder}: no offline W&B run below it (offline-run-*/run-*.wandb with an id of {' '.join(ids)})"
        )
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(lambda item: _merge(*item), segments.items()))


def accuracies(run: OfflineRun, group: str) -> Iterator[tuple[float, float]]:
    """Yield (epoch, top-1 in percent) of each evaluation; `group` is its metric group (`local`, `eval`).

    An evaluation is logged in a step of its own without an epoch; its epoch is that of the preceding training entry.
    """
    epoch = 0.0
    for line in run.history:
        epoch = float(line.get("train/epoch", epoch))
        if f"{group}/top1_pct" in line:
            yield epoch, float(line[f"{group}/top1_pct"])


def _merge(run_id: str, logs: Sequence[Path]) -> OfflineRun:
    """Merge the segments of a run, oldest first; later values of config and summary replace earlier ones."""
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: dict[int, dict[str, Any]] = {}
    for entry in (entry for log in logs for entry in _entries(log)):
        match entry:
            case {"type": "run", "run": {"config": {"update": dict(values)}}} | {
                "type": "config",
                "config": {"update": dict(values)},
            }:
                config |= values
            case {"type": "summary", "summary": {"update": dict(values)}}:
                summary |= values
            case {"type": "history", "history": {"item": dict(values)}}:
                history[int(values["_step"])] = values
    lines = tuple(history[step] for step in sorted(history))
    return OfflineRun(RemoteRun(run_id, str(logs[-1]), "", config, summary), lines)


def _entries(log: Path) -> Iterable[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UserError(f"{log}: W&B's client cannot read it ({lines[-1] if lines else done.returncode})")
    return [json.loads(line) for line in done.stdout.splitlines()]

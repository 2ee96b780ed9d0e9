"""Runs as W&B's offline files hold them, read by the client's own reader: for who has the mirror and not the records.

What comes out is what a server would have, so that `pull` makes records of it, with every check that it makes.
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
_READERS = 2  # each is a process of its own


@dataclass(frozen=True)
class OfflineRun:
    """One run: config and summary as a server would have them, and every line of its history, in order."""

    remote: RemoteRun
    history: tuple[dict[str, Any], ...]


def offline_runs_below(folder: Path, ids: Sequence[str] = ("*",)) -> list[OfflineRun]:
    """The runs whose offline files are below `folder`; the segments that attempts of one run have left are one.

    Args:
        ids: shell-style patterns of the runs' ids (`table1-deit_small-*`): a file takes about a second to read.

    Raises `UserError` where there are none, and for a file that the client cannot read.
    """
    segments: dict[str, list[Path]] = {}
    for log in sorted(folder.glob("**/offline-run-*/run-*.wandb")):
        run_id = log.stem.removeprefix("run-")
        if any(fnmatchcase(run_id, pattern) for pattern in ids):
            segments.setdefault(run_id, []).append(log)
    if not segments:
        raise UserError(
            f"{folder}: no offline run of W&B there (offline-run-*/run-*.wandb, {' '.join(ids)}); was it online?"
        )
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(lambda one: _merged(*one), segments.items()))


def accuracies(run: OfflineRun, group: str) -> Iterator[tuple[float, float]]:
    """(epoch, top-1 in percent) of each evaluation; `group` is where its accuracies go (`local`, `eval`).

    An evaluation has a step of its own and no epoch: it is that of the last training line before it.
    """
    epoch = 0.0
    for line in run.history:
        epoch = float(line.get("train/epoch", epoch))
        if f"{group}/top1_pct" in line:
            yield epoch, float(line[f"{group}/top1_pct"])


def _merged(run_id: str, logs: Sequence[Path]) -> OfflineRun:
    """A run from its segments, oldest first: later values of config and summary replace earlier ones."""
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: dict[int, dict[str, Any]] = {}
    for entry in (entry for log in logs for entry in _entries(log)):
        match entry:
            case {"type": "run", "run": {"config": {"update": dict(values)}}}:
                config |= values
            case {"type": "config", "config": {"update": dict(values)}}:
                config |= values
            case {"type": "summary", "summary": {"update": dict(values)}}:
                summary |= values
            case {"type": "history", "history": {"item": dict(values)}}:
                history[int(values["_step"])] = values
    lines = tuple(history[step] for step in sorted(history))
    return OfflineRun(RemoteRun(run_id, str(logs[-1]), "", config, summary), lines)


def _entries(log: Path) -> Iterable[dict[str, Any]]:
    """The entries of one file, as the client tells them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UserError(f"{log}: W&B's client cannot read it ({lines[-1] if lines else done.returncode})")
    return [json.loads(line) for line in done.stdout.splitlines()]

"""What a launch does about each run: start it, keep it, leave it. The records and Slurm decide, not a memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from repro.errors import UserError
from repro.launch.liveness import why_alive
from repro.launch.plan import PlannedRun
from repro.launch.slurm import Job
from repro.launch.submit import FOLDER
from repro.runs.sharing import name_of

LOCK_WAIT_S = 60


@dataclass(frozen=True)
class Decision:
    """What becomes of one run, and why."""

    run: PlannedRun
    action: Literal["start", "keep", "leave"]
    why: str


def decide(
    runs: Sequence[PlannedRun], jobs: Mapping[str, Job] | None, retry: bool, max_attempts: int, now: float | None = None
) -> list[Decision]:
    """One decision for each run, in order; a run comes after the one whose weights it begins with."""
    moment = time.time() if now is None else now
    decisions: dict[Path, Decision] = {}
    for run in runs:
        decision = _decide(run, jobs, retry, max_attempts, moment)
        origin = run.starts_from
        if decision.action == "start" and origin is not None and not origin.is_done:
            first = decisions.get(origin.record.path)
            if first is None or first.action == "leave":
                why = f": {first.why}" if first else ""
                decision = Decision(run, "leave", f"begins with {origin.row.id}, which is not finished{why}")
            elif first.action == "keep" and not _can_wait_in_slurm(run, origin, jobs):
                decision = Decision(run, "keep", f"waits for {origin.row.id}: {first.why}")
        decisions[run.record.path] = decision
    return list(decisions.values())


def _can_wait_in_slurm(run: PlannedRun, origin: PlannedRun, jobs: Mapping[str, Job] | None) -> bool:
    """Whether Slurm itself can hold a run back until another one, which is at work, has finished."""
    return not run.config.launcher.runs_here and jobs is not None and origin.record.status().job_id in jobs


def _decide(run: PlannedRun, jobs: Mapping[str, Job] | None, retry: bool, max_attempts: int, now: float) -> Decision:
    status = run.record.status()
    state = run.state_at(status)
    if state == "done":
        return Decision(run, "leave", "done")
    if state == "missing":
        return Decision(run, "leave", "no training for this method yet")
    alive = why_alive(run.record, status, jobs, now)
    if alive:
        return Decision(run, "keep", alive)
    if state == "failed":
        return Decision(run, "start", "failed before") if retry else Decision(run, "leave", "failed; --retry")
    if status.submissions >= max_attempts and not retry:
        return Decision(
            run, "leave", f"started {status.submissions} times without getting anywhere; see its log, then --retry"
        )
    words = {
        "planned": "not started yet",
        "requeued": "stopped; goes on",
        "cancelled": "cancelled before",
        "running": "died without a word",
        "submitted": "its job is gone",
    }
    return Decision(run, "start", words[state])


def starting(decisions: Sequence[Decision]) -> list[PlannedRun]:
    """The runs to start."""
    return [decision.run for decision in decisions if decision.action == "start"]


@contextmanager
def launcher_lock(root: Path) -> Iterator[None]:
    """Held by one launch at a time, while it decides and until what it starts can be seen by the next."""
    folder = root / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=LOCK_WAIT_S)
    except Timeout:
        raise UserError(f"{root}: another launch has been deciding for {LOCK_WAIT_S} s; try again") from None
    except OSError as error:
        if isinstance(error, PermissionError) and root.is_dir():
            raise UserError(
                f"{root}: belongs to {name_of(root.stat().st_uid)} and is not shared: chmod -R g+w, and g+s its "
                "folders; or set --runs"
            ) from None
        raise UserError(f"{root}: cannot write there ({error.strerror}); set --runs") from None
    try:
        yield
    finally:
        lock.release()

"""Decides from records and Slurm's queue what a launch does with each run: start it, keep it, or leave it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from repro.launch.liveness import why_alive
from repro.launch.plan import PlannedRun
from repro.launch.queue import Queue
from repro.runs.status import State

WHY_START: dict[State, str] = {
    "planned": "not started yet",
    "requeued": "stopped; resumes",
    "cancelled": "was cancelled",
    "running": "died",
    "submitted": "its job is gone",
}


@dataclass(frozen=True)
class Decision:
    """What to do with a run, and why: `start` it, `keep` one that is alive, or `leave` one that must not start."""

    run: PlannedRun
    action: Literal["start", "keep", "leave"]
    why: str


def decide(
    runs: Sequence[PlannedRun], queue: Queue | None, retry: bool, max_attempts: int, now: float | None = None
) -> list[Decision]:
    """Return a decision for each run, in order. Each run must come after the run that it starts from.

    `retry` also starts runs that have failed or have used up their `max_attempts` starts without progress. `now` is in
    Unix seconds.
    """
    now = time.time() if now is None else now
    decisions: dict[Path, Decision] = {}
    for run in runs:
        decision = _decide(run, queue, retry, max_attempts, now)
        if decision.action == "start":
            decision = _after_origin(decision, decisions, queue)
        decisions[run.record.path] = decision
    return list(decisions.values())


def starting(decisions: Sequence[Decision]) -> list[PlannedRun]:
    """Return the runs to start."""
    return [decision.run for decision in decisions if decision.action == "start"]


def _decide(run: PlannedRun, queue: Queue | None, retry: bool, max_attempts: int, now: float) -> Decision:
    """Decide by the run's own state."""
    status = run.record.status()
    state = run.state_at(status)
    if state == "done":
        return Decision(run, "leave", "done")
    if state == "missing":
        return Decision(run, "leave", "no training for this method yet")
    alive = why_alive(run.record, status, queue, now)
    if alive:
        return Decision(run, "keep", alive)
    if state == "failed":
        return Decision(run, "start", "failed before") if retry else Decision(run, "leave", "failed; use --retry")
    if status.submissions >= max_attempts and not retry:
        why = f"started {status.submissions} times without progress; see its logs, then use --retry"
        return Decision(run, "leave", why)
    return Decision(run, "start", WHY_START[status.state])


def _after_origin(decision: Decision, decisions: dict[Path, Decision], queue: Queue | None) -> Decision:
    """Revise the decision to start a run by the decision for the run that it starts from."""
    run = decision.run
    origin = run.starts_from
    if origin is None or origin.is_done:
        return decision
    first = decisions.get(origin.record.path)
    if first is None or first.action == "leave":
        why = f": {first.why}" if first else ""
        return Decision(run, "leave", f"starts from {origin.row.id}, which is not done{why}")
    if first.action == "keep" and not _can_wait_in_slurm(run, origin, queue):
        return Decision(run, "keep", f"waits for {origin.row.id}: {first.why}")
    return decision


def _can_wait_in_slurm(run: PlannedRun, origin: PlannedRun, queue: Queue | None) -> bool:
    """Return whether a Slurm dependency can make a run wait for another run that is alive."""
    if run.config.launcher.runs_here or queue is None:
        return False
    return queue.job_of(origin.record, origin.record.status()) is not None

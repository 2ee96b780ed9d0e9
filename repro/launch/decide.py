"""What a launch does with each run: start it, keep it, or leave it. Records and Slurm's queue decide."""

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
    """`start`; `keep`: it is alive; `leave`: it is done or must not start."""

    run: PlannedRun
    action: Literal["start", "keep", "leave"]
    why: str


def decide(
    runs: Sequence[PlannedRun], queue: Queue | None, retry: bool, max_attempts: int, now: float | None = None
) -> list[Decision]:
    """A decision for each run, in order. Each run comes after the run that it starts from."""
    now = time.time() if now is None else now
    decisions: dict[Path, Decision] = {}
    for run in runs:
        decision = _decide(run, queue, retry, max_attempts, now)
        if decision.action == "start":
            decision = _after_origin(decision, decisions, queue)
        decisions[run.record.path] = decision
    return list(decisions.values())


def starting(decisions: Sequence[Decision]) -> list[PlannedRun]:
    """The runs to start."""
    return [decision.run for decision in decisions if decision.action == "start"]


def _decide(run: PlannedRun, queue: Queue | None, retry: bool, max_attempts: int, now: float) -> Decision:
    """The decision by the run's own state."""
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
    """The decision for a run that could start, by that for the run that it starts from."""
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
    """Whether a Slurm dependency can make a run wait for another one that is alive."""
    if run.config.launcher.runs_here or queue is None:
        return False
    return queue.job_of(origin.record, origin.record.status()) is not None

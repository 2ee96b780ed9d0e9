"""The state of a run, in its record. `launch`, `status` and `report` trust it over Slurm and W&B."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

State = Literal["planned", "submitted", "running", "requeued", "done", "failed", "cancelled"]
MAX_ATTEMPTS = 5  # default number of submissions in a row without progress
EXIT_STOPPED = 75  # exit code of an attempt that was stopped: EX_TEMPFAIL, start it again
STALE_AFTER_S = 120.0  # a run whose heartbeat is older has died


@dataclass(frozen=True)
class Status:
    """The state of a run at `heartbeat` (Unix seconds), written by its latest attempt."""

    state: State = "planned"
    heartbeat: float = 0.0
    attempt: int = 0
    update: int = 0
    updates: int = 0
    job_id: str | None = None
    host: str | None = None
    pid: int | None = None
    reason: str | None = None
    submissions: int = 0  # or requeues by Slurm, since it last made progress
    started: float = 0.0  # time and update at which the latest attempt started
    update_at_start: int = 0
    loss: float | None = None
    top1_pct: float | None = None
    user: int | None = None  # who submitted the run and owns its job: others may write the file in a shared folder
    loader_share_pct: float | None = None  # share of the time that the training waited for images
    hint: str | None = None  # what to set if that is too much
    array: str | None = None  # token of the Slurm array that the run was last submitted in

    def is_silent(self, now: float) -> bool:
        """Whether the heartbeat is too old for a running attempt.

        A heartbeat in the future counts as old: after a clock was set back, it would hide a dead run for as long.
        """
        return abs(now - self.heartbeat) > STALE_AFTER_S

    @property
    def is_cancelled_unstarted(self) -> bool:
        """Whether the run was cancelled before an attempt started: no process and no job should be running it."""
        return self.state == "cancelled" and self.pid is None and self.job_id is None

    def eta_s(self) -> float | None:
        """Return the remaining seconds of training at the pace of this attempt; None before its first update."""
        updates, elapsed = self.update - self.update_at_start, self.heartbeat - self.started
        if self.state != "running" or updates <= 0 or elapsed <= 0:
            return None
        return (self.updates - self.update) * elapsed / updates

    def moved(self, state: State, **changes: Any) -> Status:
        """Return the status in another state, with a new heartbeat."""
        return replace(self, state=state, heartbeat=time.time(), **changes)

    def submitted(self, *, is_start: bool = True, **place: Any) -> Status:
        """Return the status after this user has submitted the run to a `place`: host and pid, or the array of a job.

        `is_start`: whether this counts as a start until the run makes progress.
        """
        place = {"host": None, "pid": None, "job_id": None, "array": None, "reason": None, **place}
        return self.moved("submitted", submissions=self.submissions + is_start, user=os.getuid(), **place)

    def withdrawn(self) -> Status:
        """Return the status without a submission that never started, which does not count as a retry."""
        count = max(0, self.submissions - 1)
        return self.moved(
            "requeued" if self.update else "planned", submissions=count, job_id=None, pid=None, array=None
        )

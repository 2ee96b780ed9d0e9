"""The status of a run, as its record stores it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

State = Literal["planned", "submitted", "running", "requeued", "done", "failed", "cancelled"]
MAX_ATTEMPTS = 5  # default maximum number of consecutive submissions without progress
EXIT_STOPPED = 75  # exit code of an attempt that was stopped and can be started again (EX_TEMPFAIL)
STALE_AFTER_S = 120.0  # a running attempt whose heartbeat is older is considered dead


@dataclass(frozen=True)
class Status:
    """The status of a run, written by launches and by its latest attempt."""

    state: State = "planned"
    heartbeat: float = 0.0  # when the status was written, in Unix seconds
    attempt: int = 0
    update: int = 0  # updates done, of `updates`
    updates: int = 0
    job_id: str | None = None
    host: str | None = None
    pid: int | None = None
    reason: str | None = None
    submissions: int = 0  # submissions by a launch and requeues by Slurm since the last progress
    started: float = 0.0  # when the latest attempt started, in Unix seconds
    update_at_start: int = 0
    loss: float | None = None
    top1_pct: float | None = None
    user: int | None = None  # uid of the submitter, who owns the job; in a shared folder, others may own the file
    loader_share_pct: float | None = None  # share of the time in which the training waited for images
    hint: str | None = None  # advice if that share is high
    array: str | None = None  # token of the Slurm array in which the run was last submitted

    def is_silent(self, now: float) -> bool:
        """Return whether the heartbeat is too old for a running attempt; `now` is in Unix seconds.

        A heartbeat in the future is too old as well. Otherwise, setting back a clock would hide a dead run.
        """
        return abs(now - self.heartbeat) > STALE_AFTER_S

    @property
    def is_cancelled_unstarted(self) -> bool:
        """Whether the run was cancelled before an attempt started, so that no process and no job should execute it."""
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
        """Return the status after this user has submitted the run.

        Args:
            is_start: Whether the submission counts as a start without progress until the run makes progress.
            place: Where the run was submitted to: `host` and `pid` of a launch, or `array`, the token of a Slurm array.
        """
        place = {"host": None, "pid": None, "job_id": None, "array": None, "reason": None, **place}
        return self.moved("submitted", submissions=self.submissions + is_start, user=os.getuid(), **place)

    def withdrawn(self) -> Status:
        """Return the status without its last submission, which never started and so does not count as a retry."""
        count = max(0, self.submissions - 1)
        return self.moved(
            "requeued" if self.update else "planned", submissions=count, job_id=None, pid=None, array=None
        )

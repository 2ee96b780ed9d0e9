"""What state a run is in: the truth that `launch`, `status` and `report` go by, whatever Slurm or W&B think."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

State = Literal["planned", "submitted", "running", "requeued", "done", "failed", "cancelled"]
MAX_ATTEMPTS = 5  # in a row without getting further, unless somebody says otherwise
EXIT_STOPPED = 75  # of an attempt that was told to stop. EX_TEMPFAIL: start it again
STALE_AFTER_S = 120.0  # a heartbeat older than this is a run that died without a word


@dataclass(frozen=True)
class Status:
    """The state of a run at `heartbeat` (Unix seconds), written by its latest attempt.

    `submissions` counts how often a launch has handed the run out, or Slurm has started its job again, since it last
    got further; `started` and `update_at_start` are those of the latest attempt, so that what is left can be estimated.
    `user` is the number of who has handed the run out, and owns its job: in a shared folder the file belongs to whoever
    wrote it last. `loader_share_pct` is how much of the time the training waited for its images; `hint` what to set
    where that is too much.
    """

    state: State = "planned"
    heartbeat: float = 0.0
    attempt: int = 0
    update: int = 0
    updates: int = 0
    job_id: str | None = None
    host: str | None = None
    pid: int | None = None
    reason: str | None = None
    submissions: int = 0
    started: float = 0.0
    update_at_start: int = 0
    loss: float | None = None
    top1_pct: float | None = None
    user: int | None = None
    loader_share_pct: float | None = None
    hint: str | None = None

    def is_silent(self, now: float) -> bool:
        """Whether an attempt that calls itself running has not been heard of for a while.

        A heartbeat in the future is no sign of life either: a clock went backwards, and would hide a death for as long.
        """
        return abs(now - self.heartbeat) > STALE_AFTER_S

    @property
    def is_cancelled_unstarted(self) -> bool:
        """Whether the run was cancelled while it waited to be started: no attempt, and no job, is meant to be at it."""
        return self.state == "cancelled" and self.pid is None and self.job_id is None

    def eta_s(self) -> float | None:
        """Seconds of training left at the pace of this attempt; None before there is a pace."""
        updates, elapsed = self.update - self.update_at_start, self.heartbeat - self.started
        if self.state != "running" or updates <= 0 or elapsed <= 0:
            return None
        return (self.updates - self.update) * elapsed / updates

    def moved(self, state: State, **changes: Any) -> Status:
        """The same run, in another state, with a fresh heartbeat."""
        return replace(self, state=state, heartbeat=time.time(), **changes)

    def taken_back(self, counted: bool = True) -> Status:
        """The same run, handed out and not started by whoever had it: that was no submission in vain.

        `counted` is whether `submissions` has one for it.
        """
        count = max(0, self.submissions - counted)
        return self.moved("requeued" if self.update else "planned", submissions=count, job_id=None, pid=None)

    def as_json(self) -> dict[str, Any]:
        """Plain values for status.json."""
        return asdict(self)

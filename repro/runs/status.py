"""What state a run is in: the truth that `launch`, `status` and `report` go by, whatever Slurm or W&B think."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

State = Literal["planned", "submitted", "running", "requeued", "done", "failed", "cancelled"]
STALE_AFTER_S = 120.0  # a heartbeat older than this is a run that died without a word


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

    def moved(self, state: State, **changes: Any) -> Status:
        """The same run, in another state, with a fresh heartbeat."""
        return replace(self, state=state, heartbeat=time.time(), **changes)

    def as_json(self) -> dict[str, Any]:
        """Plain values for status.json."""
        return asdict(self)

"""W&B sweeps: `wandb agent` starts `repro train`, and the run that it trains is mirrored into the agent's W&B run.

The agent tells the client through environment variables which run of the sweep to use. Only the record of `repro train`
may use it: the runs that it starts from, and those of a `repro launch` or a push in the same shell, have W&B runs of
their own. mirror.json stores the id, so that later attempts and pushes find the same W&B run without an agent.
"""

from __future__ import annotations

import os
from pathlib import Path

from repro.errors import UserError
from repro.runs.record import Record, all_records
from repro.tracking.login import is_disabled
from repro.tracking.mirror_file import Mirror, push_command, read_mirror, write_mirror
from repro.tracking.wandb_project import choose_project

_SWEEP, _RUN, _PARAMETERS = "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"


def agent_run_id() -> str | None:
    """Return the id of the W&B run that a sweep agent created for this process; None without an agent."""
    return os.environ.get(_RUN) if os.environ.get(_SWEEP) else None


def check_agent_run(path: Path, root: Path) -> None:
    """Raise `UserError` if the agent's W&B run already mirrors a record below `root` other than that in `path`.

    Two runs in one W&B run would overwrite each other. An agent gives each run its own id, so this one was set by hand.
    """
    run_id = agent_run_id()
    for record in all_records(root) if run_id is not None else ():
        mirror = read_mirror(record.path)
        if record.path != path and mirror is not None and mirror.run_id == run_id:
            raise UserError(f"{_RUN}={run_id}: already the W&B run of {record.path}; unset it, or use wandb agent")


def mirror_into_agent_run(record: Record) -> None:
    """Make the agent's W&B run the mirror of `record`, replacing any other; do nothing without an agent."""
    run_id, config = agent_run_id(), record.config()
    mirror = read_mirror(record.path)
    if run_id is None or is_disabled(config) or (mirror is not None and mirror.run_id == run_id):
        return
    project = choose_project(config.tracker)  # the agent sets WANDB_PROJECT and WANDB_ENTITY
    reason, push = "has not started yet", push_command(record.path)
    write_mirror(
        record.path,
        Mirror("behind", "none", run_id, reason=reason, push=push, entity=project.entity, project=project.name),
    )


def needs_push_to_agent(record: Record) -> bool:
    """Return whether a finished record, trained in another run of the sweep, must be pushed to the agent's run."""
    mirror = read_mirror(record.path)
    is_agents = mirror is not None and mirror.run_id == agent_run_id() and mirror.state != "current"
    return is_agents and record.result() is not None


def join_or_leave_sweep(run_id: str) -> bool:
    """Return whether `run_id` is the agent's run; if not, remove the agent's variables from the environment.

    Call this before the client reads the environment: if WANDB_SWEEP_ID is set, it ignores any other run id.
    """
    if agent_run_id() == run_id:
        return True
    if os.environ.get(_SWEEP):
        for variable in (_SWEEP, _RUN, _PARAMETERS):
            os.environ.pop(variable, None)
    return False

"""How many cores a process has for itself."""

from __future__ import annotations

import os


def cores() -> int:
    """Of this process: Linux tells; a container, or a task of Slurm, may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_rank(ranks_here: int) -> int:
    """Of each of so many training processes of this machine, one at least.

    Tasks of Slurm have what they asked for, whether it binds them to that or not; others share what there is.
    """
    asked, tasks = os.environ.get("SLURM_CPUS_PER_TASK"), os.environ.get("SLURM_STEP_NUM_TASKS")
    if asked and tasks and tasks == os.environ.get("WORLD_SIZE"):  # each rank is a task: not torchrun within one
        return max(1, min(cores(), int(asked)))
    return max(1, cores() // max(1, ranks_here))

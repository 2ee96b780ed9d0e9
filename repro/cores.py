"""The number of CPU cores that a process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the cores of this process, which in a container or a Slurm task may be fewer than those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_rank(ranks_here: int) -> int:
    """Return the cores of each of `ranks_here` training processes of this machine, at least one.

    Slurm tasks have the cores that they requested, even if Slurm does not bind them. Other ranks share the cores.
    """
    requested, tasks = os.environ.get("SLURM_CPUS_PER_TASK"), os.environ.get("SLURM_STEP_NUM_TASKS")
    # Each rank is a task, unlike with torchrun in a task.
    if requested and tasks and tasks == os.environ.get("WORLD_SIZE"):
        return max(1, min(cores(), int(requested)))
    return max(1, cores() // max(1, ranks_here))

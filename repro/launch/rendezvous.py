"""The environment variables by which the ranks of a run find each other. They must be set before torch is imported."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from repro.launch import slurm

FIRST_PORT, PORTS = 12000, 20000  # below Linux's ephemeral ports


def join_step() -> None:
    """Set the variables that torch.distributed reads, if this process is one of several tasks of `srun`.

    Do nothing under torchrun, which sets them itself, and in a single process, such as a batch script or an interactive
    shell.
    """
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    from submitit.slurm.slurm import SlurmJobEnvironment

    job = SlurmJobEnvironment()
    step = f"{job.raw_job_id}.{os.environ.get('SLURM_STEP_ID', '0')}"  # steps of one job may run at the same time
    os.environ.update(
        task_environment(job.global_rank, job.local_rank, job.num_tasks, job.num_nodes, job.hostnames, step)
    )


def port(job_id: str, restarts: int) -> int:
    """Return a port that two jobs on one node, or two starts of one job, are unlikely to share."""
    digits = int("".join(char for char in job_id if char.isdecimal()) or "0")
    # The port of the previous start may still be in TIME_WAIT.
    return FIRST_PORT + (digits + 7919 * restarts) % PORTS


def rank_environment(rank: int, local_rank: int, size: int, nodes: int, address: str, port: int) -> dict[str, str]:
    """Return the variables that torch.distributed reads, for one rank; `address` is that of the first node."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size // nodes),
        # A node may be unable to resolve its own name.
        "MASTER_ADDR": address if nodes > 1 else "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def task_environment(
    rank: int, local_rank: int, size: int, nodes: int, hosts: Sequence[str], job_id: str
) -> dict[str, str]:
    """Return the variables of one task of a Slurm job: those of `rank_environment`, and compiler caches of its own.

    Jobs that share a compiler cache corrupt it, and home folders have quotas. A cache that the user has set is kept.
    """
    variables = rank_environment(rank, local_rank, size, nodes, hosts[0], port(job_id, slurm.restart_count()))
    cache = Path(tempfile.gettempdir()) / f"repro-{os.getuid()}-{job_id}"
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        if name not in os.environ:
            variables[name] = str(cache / name.split("_", 1)[0].lower())
    return variables

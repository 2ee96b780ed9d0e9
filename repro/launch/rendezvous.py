"""How the ranks of a job find each other, and where they keep what they compile. Set before torch is imported."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

FIRST_PORT, PORTS = 12000, 20000  # below the ports that Linux hands out to clients


def join_step() -> None:
    """In a task of `srun`, set what torch.distributed reads; elsewhere, and under torchrun, leave all as it is.

    A batch script, and a shell that `srun` has opened, are one process: they are no ranks of each other.
    """
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    from submitit.slurm.slurm import SlurmJobEnvironment

    job = SlurmJobEnvironment()
    step = f"{job.raw_job_id}.{os.environ.get('SLURM_STEP_ID', '0')}"  # steps of one job may run side by side
    os.environ.update(environment(job.global_rank, job.local_rank, job.num_tasks, job.num_nodes, job.hostnames, step))


def port(job_id: str, restarts: int) -> int:
    """A port that two jobs on one node, or two starts of one job, are unlikely to share."""
    digits = int("".join(char for char in job_id if char.isdecimal()) or "0")
    # A started job's old port may still be in TIME_WAIT: each start takes another one.
    return FIRST_PORT + (digits + 7919 * restarts) % PORTS


def environment(rank: int, local_rank: int, size: int, nodes: int, hosts: Sequence[str], job_id: str) -> dict[str, str]:
    """What torch.distributed and the compilers read from the environment, for one task of a job."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size // nodes),
        # A node need not be able to resolve its own name.
        "MASTER_ADDR": hosts[0] if nodes > 1 else "127.0.0.1",
        "MASTER_PORT": str(port(job_id, restarts)),
    }
    # Two jobs that share a compiler's cache corrupt it (and home folders have quotas): one for each job.
    cache = Path(tempfile.gettempdir()) / f"repro-{os.getuid()}-{job_id}"
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        if name not in os.environ:
            variables[name] = str(cache / name.split("_", 1)[0].lower())
    return variables

"""Translates a Slurm launcher into the parameters of submitit's Slurm executor. No function here calls Slurm."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from repro.config import InlineLauncher, Launcher, SlurmLauncher

# Since Slurm 22.05, srun does not inherit --cpus-per-task from the job: a task that requested 8 CPUs would get one.
CPUS_FOR_STEPS = 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'


def executor_parameters(
    launcher: SlurmLauncher, name: str, dependencies: Sequence[str] = (), parallel: int | None = None
) -> dict[str, Any]:
    """Return the parameters of one array.

    Args:
        launcher: The options of the user.
        name: The name of the job.
        dependencies: Conditions of `sbatch --dependency`, such as `afterok:16_3`.
        parallel: Maximum number of tasks that run at the same time; None for `launcher.parallel`.
    """
    extra: dict[str, Any] = dict(launcher.extra)
    if launcher.requeue:
        extra["requeue"] = True  # after a node failure; for a preemption, PreemptMode decides
    else:
        extra["no-requeue"] = True
    if launcher.reservation is not None:
        extra["reservation"] = launcher.reservation
    if any(text.startswith("afterok") for text in dependencies):
        extra["kill-on-invalid-dep"] = "yes"  # otherwise it would stay pending forever after a job that failed
    values = {
        "job_name": name,
        "account": launcher.account,
        "partition": launcher.partition,
        "qos": launcher.qos,
        "gres": launcher.gres,
        "constraint": launcher.constraint,
        "exclude": launcher.exclude,
        "dependency": ",".join(dependencies) or None,
        "time": launcher.time_min,
        "nodes": launcher.nodes,
        "ntasks_per_node": launcher.tasks_per_node,
        "gpus_per_node": launcher.gpus_per_node or None,
        "cpus_per_task": launcher.cpus_per_task,
        "mem": f"{round(1024 * launcher.mem_gb)}MB" if launcher.mem_gb else None,
        "signal_delay_s": launcher.signal_lead_s,
        "array_parallelism": launcher.parallel if parallel is None else parallel,
        "wckey": None,
        "setup": [CPUS_FOR_STEPS, *launcher.setup],
        # Without it, the other ranks of one that dies would hang until a collective times out.
        "srun_args": ["--kill-on-bad-exit=1", *launcher.srun_args],
        "additional_parameters": extra,
    }
    # submitit sets a default `wckey`; only an explicit None removes it.
    return {key: value for key, value in values.items() if value is not None or key == "wckey"}


def idle_gpus(launcher: Launcher) -> str | None:
    """Return a warning if a node has more GPUs than ranks, else None.

    This is not an error, because some sites allocate only whole nodes.
    """
    if isinstance(launcher, InlineLauncher):
        return None
    gpus, ranks = launcher.gpus_per_node or 0, launcher.tasks_per_node
    if gpus <= ranks:
        return None
    return (
        f"launcher.gpus_per_node={gpus} with launcher.tasks_per_node={ranks}: each rank uses one GPU, so "
        f"{gpus - ranks} of each node would be idle; set launcher.tasks_per_node={gpus} to use all"
    )


def python_command(launcher: SlurmLauncher) -> str:
    """Return the command that runs this environment's Python on a node, inside the launcher's container if any."""
    return shlex.join([*launcher.container, sys.executable])


def chunk_size(launcher: SlurmLauncher, configuration: dict[str, str]) -> int:
    """Return the maximum number of tasks in one array, since sbatch refuses a larger array as a whole.

    Slurm's MaxArraySize (default 1001) is one more than the largest index. `launcher.array_size` can lower the limit.
    """
    limit = max(1, int(configuration.get("MaxArraySize", "1001")) - 1)
    return min(limit, launcher.array_size or limit)

"""The parameters of submitit's Slurm executor. Pure functions."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from repro.config import InlineLauncher, Launcher, SlurmLauncher

# Since Slurm 22.05 a step does not inherit the CPUs of its job: a task of 8 CPUs would train on one.
CPUS_FOR_STEPS = 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'


def parameters(
    launcher: SlurmLauncher, name: str, dependencies: Sequence[str] = (), parallel: int | None = None
) -> dict[str, Any]:
    """The parameters of one array, `parallel` tasks at once; `dependencies` are those of sbatch (`afterok:16_3`)."""
    extra: dict[str, Any] = dict(launcher.extra)
    if launcher.requeue:
        extra["requeue"] = True  # after a node failure; a preemption follows the partition
    else:
        extra["no-requeue"] = True
    if launcher.reservation is not None:
        extra["reservation"] = launcher.reservation
    if any(text.startswith("afterok") for text in dependencies):
        extra["kill-on-invalid-dep"] = "yes"  # else it would wait forever for a job that failed
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
        # If a rank dies, the others would wait until a collective times out.
        "srun_args": ["--kill-on-bad-exit=1", *launcher.srun_args],
        "additional_parameters": extra,
    }
    # submitit has a default `wckey`, which only None removes.
    return {key: value for key, value in values.items() if value is not None or key == "wckey"}


def idle_gpus(launcher: Launcher) -> str | None:
    """A warning about GPUs that no rank trains on, or None. It is no error: some sites allocate whole nodes only."""
    if isinstance(launcher, InlineLauncher):
        return None
    gpus, ranks = launcher.gpus_per_node or 0, launcher.tasks_per_node
    if gpus <= ranks:
        return None
    return (
        f"launcher.gpus_per_node={gpus} with launcher.tasks_per_node={ranks}: each rank uses one GPU, the other "
        f"{gpus - ranks} of a node are idle; launcher.tasks_per_node={gpus} uses all"
    )


def python(launcher: SlurmLauncher) -> str:
    """The command for python on a node: that of this environment, in the launcher's container."""
    return shlex.join([*launcher.container, sys.executable])


def chunk_size(launcher: SlurmLauncher, configuration: dict[str, str]) -> int:
    """The size of the largest array. MaxArraySize limits the index; sbatch refuses larger arrays as a whole."""
    limit = max(1, int(configuration.get("MaxArraySize", "1001")) - 1)
    return min(limit, launcher.array_size or limit)

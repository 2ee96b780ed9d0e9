"""What a run asks of Slurm, in submitit's words. Pure: a golden job script is tested."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from repro.config import InlineLauncher, Launcher, LocalLauncher, SlurmLauncher

# A Slurm step does not inherit the CPUs of its job since 22.05: without this a task of 8 CPUs trains on one.
CPUS_FOR_STEPS = 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'


def parameters(
    launcher: SlurmLauncher, name: str, dependencies: Sequence[str] = (), parallel: int | None = None
) -> dict[str, Any]:
    """Parameters of submitit's Slurm executor, for one array.

    All `dependencies` (`afterok:16_3`, in sbatch's words) have to hold before it starts; `parallel` of its tasks run at
    once, None: as many as the launcher allows.
    """
    extra: dict[str, Any] = dict(launcher.extra)
    if launcher.requeue:
        extra["requeue"] = True  # after a node failure; a preemption follows the partition
    else:
        extra["no-requeue"] = True
    if launcher.reservation is not None:
        extra["reservation"] = launcher.reservation
    if any(words.startswith("afterok") for words in dependencies):
        extra["kill-on-invalid-dep"] = "yes"  # otherwise it would wait for ever for a job that failed
    asked = {
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
        # A rank that dies takes the others with it: they would wait for it until a collective times out.
        "srun_args": ["--kill-on-bad-exit=1", *launcher.srun_args],
        "additional_parameters": extra,
    }
    # submitit has defaults of its own for what is left out; `wckey` alone must be None to be left out.
    return {key: value for key, value in asked.items() if value is not None or key == "wckey"}


def idle_gpus(launcher: Launcher) -> str | None:
    """What to say where runs ask for GPUs that none of their ranks trains on; None where there are no such.

    Not refused: a site may hand out whole nodes only.
    """
    if isinstance(launcher, InlineLauncher):
        return None
    gpus, ranks = launcher.gpus_per_node or 0, launcher.tasks_per_node
    if gpus <= ranks:
        return None
    return (
        f"launcher.gpus_per_node={gpus} with launcher.tasks_per_node={ranks}: a rank trains on one GPU, the other "
        f"{gpus - ranks} of a node are paid for and do nothing; launcher.tasks_per_node={gpus} uses all"
    )


def python(launcher: SlurmLauncher | LocalLauncher) -> str:
    """The command that starts a task: this environment's python itself, never an installer."""
    words = launcher.container if isinstance(launcher, SlurmLauncher) else ()
    return shlex.join([*words, sys.executable])


def chunk_size(launcher: SlurmLauncher, configuration: dict[str, str]) -> int:
    """The largest array. MaxArraySize limits the index, and an array beyond it submits nothing at all."""
    limit = max(1, int(configuration.get("MaxArraySize", "1001")) - 1)
    return min(limit, launcher.array_size or limit)

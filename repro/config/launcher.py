"""Where runs go: processes of this one, submitit's local executor, or Slurm."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from repro.config.section import Section


class InlineLauncher(Section):
    """Processes of this one; `parallel` runs at once."""

    name: Literal["inline"]
    parallel: PositiveInt | Literal["auto"]

    @property
    def wants_gpus(self) -> bool:
        """It asks for nothing: a run takes what it finds."""
        return False

    @property
    def runs_here(self) -> bool:
        """Whether runs are processes of this machine."""
        return True


class LocalLauncher(Section):
    """submitit's local executor: jobs on this machine, each with a log of its own, of one or more ranks."""

    name: Literal["local"]
    parallel: PositiveInt | Literal["auto"]
    tasks_per_node: PositiveInt
    gpus_per_node: NonNegativeInt
    setup: tuple[str, ...]

    @property
    def wants_gpus(self) -> bool:
        """Whether a run is to have GPUs."""
        return self.gpus_per_node > 0

    @property
    def runs_here(self) -> bool:
        """Whether runs are processes of this machine."""
        return True


class SlurmLauncher(Section):
    """What a run asks of Slurm. `parallel` caps how many tasks of an array run at once; null leaves a key to the site.

    `time_min` in minutes, `mem_gb` per node, `signal_lead_s` the seconds before the time limit at which a job is told.
    """

    name: Literal["slurm"]
    parallel: PositiveInt
    account: str | None
    partition: str | None
    qos: str | None
    gres: str | None
    constraint: str | None
    reservation: str | None
    exclude: str | None
    time_min: PositiveInt
    nodes: PositiveInt
    tasks_per_node: PositiveInt
    gpus_per_node: NonNegativeInt | None
    cpus_per_task: PositiveInt
    mem_gb: PositiveFloat | None
    signal_lead_s: PositiveInt
    requeue: bool
    max_requeues: NonNegativeInt
    array_size: PositiveInt | None
    setup: tuple[str, ...]
    container: tuple[str, ...]
    srun_args: tuple[str, ...]
    extra: dict[str, str | int | bool]

    @property
    def wants_gpus(self) -> bool:
        """Whether a run is to have GPUs, in whichever of sbatch's words."""
        words = [f"{key}={value}" for key, value in {"gres": self.gres or "", **self.extra}.items()]
        return bool(self.gpus_per_node) or any("gpu" in word for word in words)

    @property
    def runs_here(self) -> bool:
        """A login node is not the device that runs."""
        return False

    @property
    def ranks(self) -> int:
        """Processes of one run."""
        return self.nodes * self.tasks_per_node


Launcher = InlineLauncher | LocalLauncher | SlurmLauncher

"""The `launcher` section: where runs are executed, on this machine or by Slurm."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from repro.config.sections import Section


class InlineLauncher(Section):
    """Executes runs on this machine, `parallel` at once, each as one process."""

    runs_here: ClassVar[bool] = True  # whether runs are processes on this machine
    wants_gpus: ClassVar[bool] = False  # whether a run must fail if it finds no GPU
    ranks: ClassVar[int] = 1  # processes of one run

    name: Literal["inline"]
    parallel: PositiveInt | Literal["auto"]


class LocalLauncher(Section):
    """Executes runs on this machine, `parallel` at once, each with `tasks_per_node` ranks and its own GPUs."""

    runs_here: ClassVar[bool] = True

    name: Literal["local"]
    parallel: PositiveInt | Literal["auto"]
    tasks_per_node: PositiveInt
    gpus_per_node: NonNegativeInt
    setup: tuple[str, ...]

    @property
    def wants_gpus(self) -> bool:
        """Whether runs request GPUs."""
        return self.gpus_per_node > 0

    @property
    def ranks(self) -> int:
        """Processes of one run."""
        return self.tasks_per_node


class SlurmLauncher(Section):
    """Executes runs as Slurm jobs, at most `parallel` at once. An option that is None gets the site's default."""

    runs_here: ClassVar[bool] = False

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
    mem_gb: PositiveFloat | None  # per node
    signal_lead_s: PositiveInt  # how long before the time limit Slurm sends the signal to save
    requeue: bool
    max_requeues: NonNegativeInt
    array_size: PositiveInt | None
    setup: tuple[str, ...]
    container: tuple[str, ...]
    srun_args: tuple[str, ...]
    extra: dict[str, str | int | bool]

    @property
    def wants_gpus(self) -> bool:
        """Whether runs request GPUs, by any option of sbatch."""
        words = [f"{key}={value}" for key, value in {"gres": self.gres or "", **self.extra}.items()]
        return bool(self.gpus_per_node) or any("gpu" in word for word in words)

    @property
    def ranks(self) -> int:
        """Processes of one run."""
        return self.nodes * self.tasks_per_node


Launcher = InlineLauncher | LocalLauncher | SlurmLauncher

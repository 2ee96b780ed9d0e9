"""Where runs are executed: on this machine, or by Slurm."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from repro.config.section import Section


class InlineLauncher(Section):
    """Runs on this machine, `parallel` at once, one process each."""

    runs_here: ClassVar[bool] = True  # as processes of this machine
    wants_gpus: ClassVar[bool] = False  # runs use the GPUs that they find
    ranks: ClassVar[int] = 1  # processes of one run

    name: Literal["inline"]
    parallel: PositiveInt | Literal["auto"]


class LocalLauncher(Section):
    """Runs on this machine, `parallel` at once, each of `tasks_per_node` ranks on `gpus_per_node` GPUs of its own."""

    runs_here: ClassVar[bool] = True

    name: Literal["local"]
    parallel: PositiveInt | Literal["auto"]
    tasks_per_node: PositiveInt
    gpus_per_node: NonNegativeInt
    setup: tuple[str, ...]

    @property
    def wants_gpus(self) -> bool:
        """Whether runs need GPUs."""
        return self.gpus_per_node > 0

    @property
    def ranks(self) -> int:
        """Processes of one run."""
        return self.tasks_per_node


class SlurmLauncher(Section):
    """Runs as Slurm jobs, at most `parallel` at once. None leaves an option to the site."""

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
    signal_lead_s: PositiveInt  # from the signal to the time limit
    requeue: bool
    max_requeues: NonNegativeInt
    array_size: PositiveInt | None
    setup: tuple[str, ...]
    container: tuple[str, ...]
    srun_args: tuple[str, ...]
    extra: dict[str, str | int | bool]

    @property
    def wants_gpus(self) -> bool:
        """Whether runs need GPUs, by any option of sbatch."""
        words = [f"{key}={value}" for key, value in {"gres": self.gres or "", **self.extra}.items()]
        return bool(self.gpus_per_node) or any("gpu" in word for word in words)

    @property
    def ranks(self) -> int:
        """Processes of one run."""
        return self.nodes * self.tasks_per_node


Launcher = InlineLauncher | LocalLauncher | SlurmLauncher

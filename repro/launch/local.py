"""Runs as jobs of submitit's local executor: several ranks, GPUs of their own, logs as on a cluster."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import submitit

from repro.config import LocalLauncher
from repro.launch.inline import note_death
from repro.launch.job import RunJob
from repro.launch.plan import PlannedRun
from repro.launch.request import python
from repro.launch.submit import jobs_folder, note_id

A_YEAR_MIN = 60 * 24 * 365  # submitit gives a job two minutes by default


class LocalJobs:
    """Starts jobs, each on GPUs that no other one of them has: as many at once as there are `shares`."""

    def __init__(self, launcher: LocalLauncher, root: Path, shares: Sequence[tuple[int, ...]]) -> None:
        self.launcher, self.root = launcher, root
        self._free = list(shares)

    def start(self, run: PlannedRun) -> LocalJob:
        """Start one run."""
        launcher = self.launcher
        gpus = self._free.pop(0)
        folder = jobs_folder(self.root)
        executor = submitit.LocalExecutor(folder, python=python(launcher))
        executor.update_parameters(
            timeout_min=A_YEAR_MIN,
            tasks_per_node=launcher.tasks_per_node,
            gpus_per_node=len(gpus),
            visible_gpus=gpus,
            setup=_heard(launcher.setup, folder),
        )
        # A Ctrl-C reaches every process of the terminal. submitit's controller would answer it by killing the tasks
        # while they save; it inherits that this process ignores it at this moment, and the tasks take it themselves.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            job = executor.submit(RunJob(run.record.path))
        finally:
            signal.signal(signal.SIGINT, before)
        note_id(run.record, f"local-{job.job_id}")
        return LocalJob(run.record.path, job, lambda: self._free.append(gpus))


def _heard(setup: Sequence[str], folder: Path) -> list[str]:
    """Setup lines whose words go into the job's logs: its number is that of the shell that runs them."""
    if not setup:
        return []
    log = f"{shlex.quote(str(folder))}/$$_0_log"
    return [f"exec >> {log}.out 2>> {log}.err", *setup]


class LocalJob:
    """One run at work."""

    def __init__(self, path: Path, job: submitit.LocalJob, release: Callable[[], None]) -> None:
        self.path, self._job, self._release = path, job, release

    def has_ended(self) -> bool:
        """Whether the job is over; its GPUs are free then."""
        if not self._job.done():
            return False
        self._release()
        note_death(self.path, None)
        return True

    def kill(self) -> None:
        """End it now, its ranks too: the controller ignores SIGINT, and hands a SIGTERM on as a wish."""
        try:
            controller = psutil.Process(int(self._job.job_id))
            family = [*controller.children(recursive=True), controller]
        except psutil.NoSuchProcess:
            return
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

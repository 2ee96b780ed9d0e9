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
from repro.launch.inline import kill_family, note_death
from repro.launch.job import RunJob
from repro.launch.plan import PlannedRun
from repro.launch.request import python
from repro.launch.submit import jobs_folder, note_id
from repro.training.interruption import held_back

A_YEAR_MIN = 60 * 24 * 365  # submitit gives a job two minutes by default
TASK = "submitit.core._submit"


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
        # while they save: it never hears of it, and the tasks do as soon as they listen.
        with held_back():
            job = executor.submit(RunJob(run.record.path))
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
        self._told: set[int] = set()
        self._is_asked = False

    def has_ended(self) -> bool:
        """Whether the job is over; its GPUs are free then."""
        if not self._job.done():
            return False
        self._release()
        note_death(self.path, None, self._is_asked)
        return True

    def stop(self) -> None:
        """Tell each rank once, also those that come up only now: the controller may have been about to start them."""
        self._is_asked = True
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(int(self._job.job_id)).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.pid not in self._told and _is_rank(process):
                        self._told.add(process.pid)
                        process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, its ranks too."""
        self._is_asked = True
        kill_family(int(self._job.job_id))


def _is_rank(process: psutil.Process) -> bool:
    """Whether this is a task of submitit's, and none of the processes that a task has forked."""
    parent = process.parent()
    return TASK in process.cmdline() and (parent is None or TASK not in parent.cmdline())

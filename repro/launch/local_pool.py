"""Executes runs on this machine, several at once, until all have ended or the user interrupts them."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from filelock import Timeout

from repro.cores import cores
from repro.launch.plan import PlannedRun
from repro.runs.record import Record
from repro.runs.status import STALE_AFTER_S, Status

POLL_S = 0.1
WATCH_EVERY_S = 0.25
RENEW_EVERY_S = STALE_AFTER_S / 4
MAX_RENEWALS_PER_POLL = 5


class Worker(Protocol):
    """The processes of one run."""

    def has_ended(self) -> bool:
        """Return whether all processes have exited. `run_all` polls this until it is true."""

    def stop(self) -> None:
        """Ask the processes to save and stop. `run_all` calls this repeatedly until they have exited."""

    def kill(self) -> None:
        """Kill the processes. `run_all` calls this repeatedly until they have exited."""


def parallelism(parallel: int | str, cpu_threads: int) -> int:
    """Return how many runs to execute at once; `auto` is one per `cpu_threads` cores, or 1 if `cpu_threads` is 0."""
    if parallel != "auto":
        return int(parallel)
    return max(1, cores() // cpu_threads) if cpu_threads else 1


def enqueue(runs: Sequence[PlannedRun]) -> None:
    """Record that this process will start these runs. The caller must hold the launch lock."""
    for run in runs:
        run.record.set_status(run.record.status().submitted(host=platform.node(), pid=os.getpid()))


def is_enqueued(status: Status) -> bool:
    """Return whether this process still has to start the run: no other launch has taken it, and nobody cancelled it."""
    return status.state == "submitted" and (status.host, status.pid) == (platform.node(), os.getpid())


def dequeue(runs: Sequence[PlannedRun]) -> None:
    """Record that this process will not start those of the runs that it had enqueued."""
    for run in runs:
        status = run.record.status()
        if is_enqueued(status):
            run.record.set_status(status.withdrawn())


class LocalQueue:
    """The runs that wait for a slot in this process, in order.

    Their heartbeats tell launches on other machines that this process will start them.
    """

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.waiting = list(runs)
        self._renewed = {run.record.path: time.monotonic() for run in runs}

    def next(self, running: Iterable[Path]) -> PlannedRun | None:
        """Return the first run that can start now; None if there is none."""
        while (run := self._next(set(running))) is not None and not is_enqueued(run.record.status()):
            self.waiting.remove(run)  # another launch has taken it, or it was cancelled
            self.drop_dependents(run)
        return run

    def drop_dependents(self, run: PlannedRun) -> None:
        """Remove the runs that start from `run`, and leave them to a later launch."""
        dependents = [other for other in self.waiting if other.depends_on(run)]
        dequeue(dependents)
        self.waiting = [other for other in self.waiting if other not in dependents]

    def renew(self, running: Iterable[Path]) -> None:
        """Renew the heartbeats that are due, a few per call: writing a thousand files would delay the next run."""
        now = time.monotonic()
        paths = [*(run.record.path for run in self.waiting), *running]
        for path in [path for path in paths if now - self._renewed[path] > RENEW_EVERY_S][:MAX_RENEWALS_PER_POLL]:
            self._renewed[path] = now
            record = Record(path)
            # A run that is just starting holds this lock and writes its own status.
            with suppress(Timeout, OSError), record.lock.acquire(timeout=0):
                status = record.status()
                if is_enqueued(status):
                    record.set_status(status.moved("submitted"))

    def _next(self, running: set[Path]) -> PlannedRun | None:
        """Return the first run that waits for no other: its origin is done, or cannot become done here.

        In the second case the run fails when it starts.
        """
        pending = {run.record.path for run in self.waiting} | running
        for run in self.waiting:
            origin = run.starts_from
            if origin is None or origin.is_done or origin.record.path not in pending:
                return run
        return None


class InterruptCounter:
    """Counts requests to stop: Ctrl-C, SIGTERM, SIGHUP.

    A signal only increments `count`, because an exception while a run is being started would orphan its process. Only
    the third Ctrl-C raises `KeyboardInterrupt`, for a launch that hangs. A closing terminal may send several SIGHUPs,
    which count once. After a SIGHUP, output to the terminal goes to /dev/null, since writing to it would fail.
    """

    def __init__(self) -> None:
        self.count = 0
        self._previous: dict[int, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> InterruptCounter:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            is_ignored = signal.getsignal(number) == signal.SIG_IGN  # nohup
            if not is_ignored and threading.current_thread() is threading.main_thread():
                self._previous[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _count(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT or not self.count:
            self.count += 1
        if number == signal.SIGHUP:
            for terminal in self._terminals:
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, terminal)
                os.close(devnull)
        if self.count > 2:
            raise KeyboardInterrupt


def run_all(
    runs: Sequence[PlannedRun],
    parallel: int,
    start: Callable[[PlannedRun], Worker],
    watch: Callable[[list[Path]], None],
) -> bool:
    """Execute runs, `parallel` at once, each after the run that it starts from; return False if interrupted.

    Runs that another launch has taken or that were cancelled are skipped. If a run fails, the runs that start from it
    fail too; if it was stopped, they are left to a later launch.

    After Ctrl-C, SIGTERM or SIGHUP, no further run is started, and this waits until the running ones have saved and
    stopped. A second Ctrl-C kills them.

    Args:
        runs: The runs, which the caller has enqueued.
        parallel: Maximum number of runs at the same time.
        start: Starts the processes of a run.
        watch: Called several times a second with the record folders of the running runs.
    """
    queue = LocalQueue(runs)
    running: dict[Path, Worker] = {}
    by_path = {run.record.path: run for run in runs}
    watched = 0.0
    with InterruptCounter() as interrupts:
        try:
            while running or (not interrupts.count and queue.waiting):
                while not interrupts.count and len(running) < parallel and (run := queue.next(running)):
                    running[run.record.path] = start(run)
                    queue.waiting.remove(run)
                handled = _forward(interrupts.count, running.values())
                queue.renew(running)
                time.sleep(POLL_S)
                # Before `has_ended`: a run that the terminal's Ctrl-C has ended must count as stopped, not as failed.
                if interrupts.count != handled:
                    _forward(interrupts.count, running.values())
                for path in _remove_ended(running):
                    if by_path[path].state not in ("done", "failed"):
                        queue.drop_dependents(by_path[path])
                if time.monotonic() - watched > WATCH_EVERY_S:
                    watched = time.monotonic()
                    watch(list(running))
        except KeyboardInterrupt:
            for worker in running.values():
                worker.kill()
            raise
        except Exception:  # such as a full disk when a run is started; the others save and stop
            while running:
                _forward(max(1, interrupts.count), running.values())
                time.sleep(POLL_S)
                _remove_ended(running)
            raise
        finally:
            dequeue(queue.waiting)
        watch([])
        return not interrupts.count


def _remove_ended(running: dict[Path, Worker]) -> list[Path]:
    """Remove the runs that have ended from `running`, and return the folders of their records."""
    ended = [path for path, worker in running.items() if worker.has_ended()]
    for path in ended:
        del running[path]
    return ended


def _forward(interrupts: int, workers: Iterable[Worker]) -> int:
    """Stop the workers after one interrupt, kill them after two; return the number of interrupts."""
    for worker in workers:
        if interrupts > 1:
            worker.kill()
        elif interrupts:
            worker.stop()
    return interrupts

"""Working through runs on this machine, a few at once, until all are done or somebody presses Ctrl-C."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from filelock import FileLock, Timeout

from repro.cores import cores
from repro.launch.plan import PlannedRun
from repro.runs.record import Record
from repro.runs.status import STALE_AFTER_S, Status

POLL_S = 0.1
WATCH_EVERY_S = 0.25
RENEW_EVERY_S = STALE_AFTER_S / 4
RENEW_AT_ONCE = 5


class Worker(Protocol):
    """A process, or several, at one run."""

    def has_ended(self) -> bool:
        """Whether it is over. Called until it says so once."""

    def stop(self) -> None:
        """Ask it to save and stop. Called again and again until it is over: a part of it may not be there yet."""

    def kill(self) -> None:
        """End it now."""


def parallelism(wanted: int | str, threads: int) -> int:
    """How many runs at once; `auto` is as many as share this process's cores with `threads` threads each.

    A run with `threads` 0 takes the whole machine, GPUs included: such runs go one after the other.
    """
    if wanted != "auto":
        return int(wanted)
    if threads == 0:
        return 1
    return max(1, cores() // threads)


def put_in_line(runs: Sequence[PlannedRun]) -> None:
    """Note in the records that this process will start these runs. The caller holds the launcher's lock."""
    for run in runs:
        status = run.record.status()
        count = status.submissions + 1
        run.record.set_status(
            status.moved(
                "submitted",
                submissions=count,
                host=platform.node(),
                pid=os.getpid(),
                job_id=None,
                reason=None,
                user=os.getuid(),
            )
        )


def is_in_line(status: Status) -> bool:
    """Whether this process is to start that run, and nobody has taken it (a line that was not renewed may be)."""
    return status.state == "submitted" and (status.host, status.pid) == (platform.node(), os.getpid())


def take_out_of_line(runs: Sequence[PlannedRun]) -> None:
    """Note that this process will not start these runs after all."""
    for run in runs:
        status = run.record.status()
        if is_in_line(status):
            run.record.set_status(status.taken_back())


class Line:
    """Keeps the heartbeats of runs in the line fresh, so that it is known elsewhere too that somebody will start them.

    A few at a time: a thousand files on a slow disk must not hold up the runs at work.
    """

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._renewed = {run.record.path: time.monotonic() for run in runs}

    def renew(self, paths: Iterable[Path]) -> None:
        """Renew the heartbeats that are due among these runs, which nobody is at yet."""
        now = time.monotonic()
        due = [path for path in paths if now - self._renewed[path] > RENEW_EVERY_S]
        for path in due[:RENEW_AT_ONCE]:
            self._renewed[path] = now
            record = Record(path)
            # A run that is being started writes its status itself, under this lock.
            with suppress(Timeout, OSError), FileLock(path / "lock").acquire(timeout=0):
                status = record.status()
                if is_in_line(status):
                    record.set_status(status.moved("submitted"))


class Interruptions:
    """Counts what asks this process to stop, Ctrl-C first of all.

    An exception instead would come in the midst of starting a run, and leave a process that nobody waits for. The third
    Ctrl-C is one: something hangs. A terminal that is closed may send more than one SIGHUP, and means one; what is
    printed after that goes nowhere, where it would have been an error.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> Interruptions:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            is_ignored = signal.getsignal(number) == signal.SIG_IGN  # nohup
            if not is_ignored and threading.current_thread() is threading.main_thread():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT or not self.count:
            self.count += 1
        if number == signal.SIGHUP:
            for terminal in self._terminals:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, terminal)
                os.close(nowhere)
        if self.count > 2:
            raise KeyboardInterrupt


def run_all(
    runs: Sequence[PlannedRun],
    parallel: int,
    start: Callable[[PlannedRun], Worker],
    watch: Callable[[list[Path]], None],
) -> bool:
    """Execute runs, `parallel` at once, none before the one it begins with; returns False where Ctrl-C stopped it.

    The runs are in this process's line (`put_in_line`); one that is not any more is another launch's, and left to it,
    or was cancelled. What begins with a run that did not come to its end goes with it; with one that failed, it fails.
    `watch` is called a few times a second with the runs at work. On Ctrl-C, SIGTERM or SIGHUP no run is started any
    more; those at work are asked to save and stop, and this waits for them; a second Ctrl-C ends them.
    """
    waiting = list(runs)
    running: dict[Path, Worker] = {}
    by_path = {run.record.path: run for run in runs}
    line = Line(runs)
    watched = 0.0
    with Interruptions() as asked:
        try:
            while running or (not asked.count and waiting):
                while not asked.count and len(running) < parallel and (run := _next(waiting, running)):
                    if is_in_line(run.record.status()):
                        running[run.record.path] = start(run)
                        waiting.remove(run)
                    else:
                        waiting.remove(run)
                        waiting = _without_those_after(run, waiting)
                heard = _pass_on(asked.count, running)
                line.renew([*(one.record.path for one in waiting), *running])
                time.sleep(POLL_S)
                if asked.count != heard:  # before they are looked at: what that has ended did not end by itself
                    _pass_on(asked.count, running)
                for path in [path for path, worker in running.items() if worker.has_ended()]:
                    del running[path]
                    if by_path[path].state not in ("done", "failed"):  # told to stop, killed, or taken over elsewhere
                        waiting = _without_those_after(by_path[path], waiting)
                if time.monotonic() - watched > WATCH_EVERY_S:
                    watched = time.monotonic()
                    watch(list(running))
        except KeyboardInterrupt:
            for worker in running.values():
                worker.kill()
            raise
        finally:
            take_out_of_line(waiting)
        watch([])
        return not asked.count


def _pass_on(presses: int, running: Mapping[Path, Worker]) -> int:
    """Tell the runs at work what a person's Ctrl-C, so many times, asks of them; returns how many."""
    for worker in running.values():
        if presses > 1:
            worker.kill()
        elif presses:
            worker.stop()
    return presses


def _without_those_after(run: PlannedRun, waiting: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs that can still be started here; those that begin with this one leave the line, for a later launch."""
    after = [one for one in waiting if one.begins_with(run)]
    take_out_of_line(after)
    return [one for one in waiting if one not in after]


def _next(waiting: Sequence[PlannedRun], running: Mapping[Path, Worker]) -> PlannedRun | None:
    """The first run that can start now. One whose beginning has failed can never start: it fails for that reason."""
    waited_for = {run.record.path for run in waiting} | set(running)
    for run in waiting:
        origin = run.starts_from
        if origin is None or origin.is_done or origin.record.path not in waited_for:
            return run
    return None

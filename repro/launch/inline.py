"""Runs on this machine, each in a process of its own.

A process per run keeps a crash, a leak or an out-of-memory kill with the run it belongs to. They are forked from a
server that has imported torch once, so that a run of ten seconds does not spend five of them on imports.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import sys
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import psutil

from repro.launch.plan import PlannedRun
from repro.runs.record import Record
from repro.runs.sharing import share_as
from repro.runs.status import EXIT_STOPPED, Status
from repro.training.interruption import held_back


class Forked:
    """One run in a process forked from the server."""

    def __init__(self, run: PlannedRun) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["repro.launch.preload"])
        self.path = run.record.path
        self._is_asked = False
        self._process = context.Process(target=execute_in_child, args=(self.path,), daemon=False)
        resource_tracker.ensure_running()  # which would undo the next line, where it is started with the server
        with held_back():  # in the server, and so in all that it forks; not here, while it imports torch for seconds
            forkserver.ensure_running()
        self._process.start()

    def has_ended(self) -> bool:
        """Whether the process is gone. One that died without a word leaves the reason in its run."""
        if self._process.is_alive():
            return False
        self._process.join()
        note_death(self.path, self._process.exitcode, self._is_asked)
        return True

    def stop(self) -> None:
        """Tell it once. It may not have been there yet when a Ctrl-C reached all processes of the terminal."""
        if not self._is_asked:
            self._is_asked = True
            self._process.terminate()

    def kill(self) -> None:
        """End it now, its loaders' processes too: they would hold its lock a while longer."""
        self._is_asked = True
        if self._process.pid is not None and self._process.is_alive():
            kill_family(self._process.pid)


def kill_family(pid: int) -> None:
    """End a process and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for process in [*first.children(recursive=True), first]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def execute_in_child(path: Path) -> None:
    """What a child process does: one attempt, its output in the record."""
    try:
        from repro.training.task import execute

        share_as(path)
        record = Record(path)
        if record.result() is not None:
            sys.exit(execute(path))
        attempt = record.claim_attempt()
        output_into(record.attempt_dir(attempt))
        sys.exit(execute(path, attempt))
    except KeyboardInterrupt:  # a second one
        sys.exit(EXIT_STOPPED)


def output_into(folder: Path) -> None:
    """From here on this process, and what it starts, writes to stdout and stderr in `folder`."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)


def note_death(path: Path, code: int | None, is_asked: bool = False) -> None:
    """Write how a process ended that could not do so itself. `code` is None where nobody knows.

    A run that was killed from outside goes on with the next launch, as often as launches may try (`--max-attempts`);
    so does one that this launch has asked to stop (`is_asked`), however it took that. What another launch or attempt
    has taken meanwhile is left to it, which tells its own end.
    """
    record = Record(path)
    status = record.status()
    if code == 0 or record.result() is not None or record.is_locked or _is_somebody_elses(status):
        return
    if (is_asked or code == EXIT_STOPPED) and status.state == "submitted":  # told to stop before it had begun
        record.set_status(status.taken_back())
    elif is_asked and status.state == "running":
        record.set_status(
            status.moved("requeued", reason="ended before it had saved; goes on from its last checkpoint")
        )
    elif code is not None and code < 0 and status.state in ("running", "submitted"):
        name = signal_name(-code)
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        record.set_status(status.moved("requeued", reason=f"the process was killed by {name}{hint}"))
    elif status.state in ("running", "submitted"):  # it could not write how it ended: a full disk, say
        how = "without a word" if code is None else f"with exit code {code}"
        record.set_status(status.moved("failed", reason=f"the process ended {how}; see its stderr"))


def signal_name(number: int) -> str:
    """`SIGKILL`, or `signal 40` for one without a name."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _is_somebody_elses(status: Status) -> bool:
    """Whether a status is of another machine, or of a process that lives: the one that has ended is neither."""
    if status.host not in (None, platform.node()):
        return True
    return status.pid not in (None, os.getpid()) and _lives(status.pid)


def _lives(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

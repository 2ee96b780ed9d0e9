"""Runs on this machine, each in a process of its own.

A process per run keeps a crash, a leak or an out-of-memory kill with the run it belongs to. They are forked from a
server that has imported torch once, so that a run of ten seconds does not spend five of them on imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

from repro.launch.plan import PlannedRun
from repro.runs.record import Record
from repro.runs.sharing import share_as


class Forked:
    """One run in a process forked from the server."""

    def __init__(self, run: PlannedRun) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["repro.launch.preload"])
        self.path = run.record.path
        self._process = context.Process(target=execute_in_child, args=(self.path,), daemon=False)
        self._process.start()

    def has_ended(self) -> bool:
        """Whether the process is gone. One that died without a word leaves the reason in its run."""
        if self._process.is_alive():
            return False
        self._process.join()
        note_death(self.path, self._process.exitcode)
        return True

    def kill(self) -> None:
        """End it now."""
        self._process.kill()


def execute_in_child(path: Path) -> None:
    """What a child process does: one attempt, its output in the record."""
    from repro.training.task import execute

    share_as(path)
    record = Record(path)
    if record.result() is not None:
        sys.exit(execute(path))
    attempt = record.claim_attempt()
    output_into(record.attempt_dir(attempt))
    sys.exit(execute(path, attempt))


def output_into(folder: Path) -> None:
    """From here on this process, and what it starts, writes to stdout and stderr in `folder`."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)


def note_death(path: Path, code: int | None) -> None:
    """Write how a process ended that could not do so itself. `code` is None where nobody knows.

    A run that was killed from outside goes on with the next launch, as often as launches may try (`--max-attempts`).
    """
    record = Record(path)
    status = record.status()
    if (
        code == 0 or record.result() is not None or record.is_locked
    ):  # another attempt is at it, which tells its own end
        return
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        record.set_status(status.moved("requeued", reason=f"the process was killed by {name}{hint}"))
    elif status.state in ("running", "submitted"):  # it could not write how it ended: a full disk, say
        how = "without a word" if code is None else f"with exit code {code}"
        record.set_status(status.moved("failed", reason=f"the process ended {how}; see its stderr"))

"""Runs on this machine: each in a process of its own, a few at once.

A process per run keeps a crash, a leak or an out-of-memory kill with the run it belongs to. They are forked from a
server that has imported torch once, so that a run of ten seconds does not spend five of them on imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from repro.launch.plan import PlannedRun
from repro.runs.record import Record

POLL_S = 0.25


def parallelism(wanted: int | str) -> int:
    """How many runs at once; `auto` is one for each core that this process may use."""
    if wanted != "auto":
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(runs: Sequence[PlannedRun], parallel: int, watch: Callable[[list[Path]], None]) -> bool:
    """Execute runs, `parallel` at once, none before the one it begins with; returns False where Ctrl-C stopped it.

    `watch` is called a few times a second with the runs at work. On Ctrl-C no run is started any more; those at work
    save and stop, and this waits for them. A process that dies without a word (killed, out of memory) leaves its run
    as failed, with the reason in its status.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["repro.launch.preload"])
    waiting = list(runs)
    running: dict[int, tuple[BaseProcess, Path]] = {}
    stopped = False
    while running or (not stopped and _next(waiting, running)):
        try:
            while not stopped and len(running) < parallel and (run := _next(waiting, running)):
                waiting.remove(run)
                path = run.record.path
                process = context.Process(target=execute_in_child, args=(path,), daemon=False)
                process.start()
                running[process.sentinel] = (process, path)
            for sentinel in wait(list(running), timeout=POLL_S):
                ended, path = running.pop(cast(int, sentinel))
                ended.join()
                _note_sudden_death(ended, path)
            watch([path for _, path in running.values()])
        except KeyboardInterrupt:
            if stopped:
                for child, _ in running.values():
                    child.kill()
            stopped = True
    return not stopped


def _next(waiting: Sequence[PlannedRun], running: Mapping[int, tuple[BaseProcess, Path]]) -> PlannedRun | None:
    """The first run that can start now. One whose beginning has failed can never start: it fails for that reason."""
    at_work = {path for _, path in running.values()}
    waited_for = {run.record.path for run in waiting} | at_work
    for run in waiting:
        origin = run.starts_from
        if origin is None or origin.is_done or origin.record.path not in waited_for:
            return run
    return None


def execute_in_child(path: Path) -> None:
    """What a child process does: one attempt, its output in the record."""
    from repro.training.task import execute

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


def _note_sudden_death(process: BaseProcess, path: Path) -> None:
    code = process.exitcode
    record = Record(path)
    status = record.status()
    if not code or record.result() is not None:
        return
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        record.set_status(status.moved("failed", reason=f"the process was killed by {name}{hint}"))
    elif status.state == "running":  # it could not write how it ended: a full disk, say
        record.set_status(status.moved("failed", reason=f"ended with exit code {code}; see its stderr"))

"""Runs on this machine: what becomes of a run whose processes die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from smoke_records import new_record

from repro.launch.local_run import LocalRun, environment_of_rank
from repro.runs.record import Record


def at_work(record: Record, ranks: int = 1) -> LocalRun:
    """A run that has made its first update."""
    run = LocalRun(record, record.config(), ranks)
    until = time.monotonic() + 120
    while not record.status().update:
        assert not run.has_ended()
        assert time.monotonic() < until
        time.sleep(0.02)
    return run


def wait(run: LocalRun) -> None:
    until = time.monotonic() + 60
    while not run.has_ended():
        assert time.monotonic() < until
        time.sleep(0.02)


def rank_pids(record: Record) -> list[int]:
    """The processes that write into the first attempt's folder, apart from loaders."""
    found = []
    for process in psutil.Process(record.status().pid).parent().children():
        files = {Path(file.path).name for file in process.open_files()}
        found += [process.pid] if any(name.startswith("stdout") for name in files) else []
    return found


def test_a_rank_that_is_killed_fails_its_run(tmp_path: Path) -> None:
    record = new_record(tmp_path, "recipe.epochs=5000")
    run = at_work(record, ranks=2)
    (other,) = set(rank_pids(record)) - {record.status().pid}
    os.kill(other, signal.SIGKILL)
    wait(run)
    assert record.status().state == "failed"
    assert not psutil.pid_exists(record.status().pid or 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_run_that_is_killed_can_be_launched_again(tmp_path: Path, number: signal.Signals) -> None:
    record = new_record(tmp_path, "recipe.epochs=5000")
    run = at_work(record)
    os.kill(record.status().pid or 0, number)
    wait(run)
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    assert (record.status().state, record.status().reason) == ("requeued", f"killed by {number.name}{hint}")


def test_a_rank_has_the_environment_of_its_launch_and_what_imports_have_set() -> None:
    started_with = {"HOME": "/home/a", "XDG_CACHE_HOME": "/old", "REMOVED": "1"}
    server = {**started_with, "KMP_INIT_AT_FORK": "FALSE", "CACHE": "of the server"}
    inherited = {"HOME": "/home/a", "XDG_CACHE_HOME": "/new", "CACHE": "of the launch", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert environment_of_rank(server, started_with, inherited, {"CUDA_VISIBLE_DEVICES": "1"}) == {
        "HOME": "/home/a",
        "XDG_CACHE_HOME": "/new",
        "CACHE": "of the launch",
        "CUDA_VISIBLE_DEVICES": "1",
        "KMP_INIT_AT_FORK": "FALSE",
    }

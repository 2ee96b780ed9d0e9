"""`repro cancel`: what is stopped, and whom it leaves in peace."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from repro.launch.control import cancel
from repro.launch.plan import PlannedRun, plan
from repro.launch.waiting import put_in_line, run_all
from repro.rows import load_table
from repro.runs.status import EXIT_STOPPED, Status
from repro.training.task import execute


@pytest.fixture
def runs(tmp_path: Path) -> list[PlannedRun]:
    """Three runs that nothing connects."""
    table = load_table("table1")
    rows = table.select(["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/svite-40"])
    every = plan(table, rows, "smoke", [0], tmp_path)
    for run in every:
        run.create()
    return every


class Worker:
    """A run that is over at once."""

    def has_ended(self) -> bool:
        return True

    def kill(self) -> None:
        raise AssertionError


def test_a_whole_line_is_cancelled_and_the_launch_starts_no_more_of_it(runs: list[PlannedRun], tmp_path: Path) -> None:
    first, *waiting = runs
    waiting[0].record.set_status(replace(waiting[0].record.status(), submissions=2, update=7))
    put_in_line(runs)
    started, said = [], []

    def start(run: PlannedRun) -> Worker:
        started.append(run)
        # From another terminal, while the first one is at work.
        run.record.set_status(run.record.status().moved("running", pid=None, host="another-node"))
        said.extend(cancel(runs, None, tmp_path))
        return Worker()

    assert run_all(runs, 1, start, lambda _: None)
    assert started == [first]
    assert said == [
        *(f"{run.row.id}: taken out of the line of a launch" for run in waiting),
        "deit_tiny/dense: is running on another-node; stop its launch there (Ctrl-C)",
    ]
    states = [run.record.status() for run in waiting]
    assert [(status.state, status.submissions, status.update) for status in states] == [
        ("cancelled", 2, 7),
        ("cancelled", 0, 0),
    ]


def test_a_process_that_was_on_its_way_to_a_cancelled_run_leaves_it(runs: list[PlannedRun], tmp_path: Path) -> None:
    run = runs[0]
    put_in_line([run])
    cancel([run], None, tmp_path)
    said: list[str] = []
    assert execute(run.record.path, tell=said.append) == EXIT_STOPPED
    assert said == [f"{run.record.path}: stopped by repro cancel, before it began"]
    assert (run.record.status().state, list(run.record.metrics())) == ("cancelled", [])
    put_in_line([run])
    assert not run.record.status().is_cancelled_unstarted  # launched again


def test_what_an_attempt_has_in_hand_is_not_taken_from_it(runs: list[PlannedRun], tmp_path: Path) -> None:
    put_in_line(runs[:1])
    with FileLock(runs[0].record.path / "lock"):
        assert cancel(runs[:1], None, tmp_path) == ["deit_tiny/dense: is being started; try again"]
    assert runs[0].record.status().state == "submitted"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has the number that a process of a run had."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_number_that_another_process_has_by_now_is_not_signalled(
    runs: list[PlannedRun], tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """Slurm cannot be asked here, so the run may be alive; its process on this machine is not."""
    status = Status("running", host=platform.node(), pid=bystander.pid, job_id="16_3", heartbeat=1.0)
    runs[0].record.set_status(status)
    (said,) = cancel(runs[:1], None, tmp_path)
    assert "make sure that it does not have job 16_3" in said
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.2)


def test_another_persons_process_is_theirs_to_stop(
    runs: list[PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    runs[0].record.set_status(Status("running", host=platform.node(), pid=4711).moved("running"))
    with FileLock(runs[0].record.path / "lock"):
        (said,) = cancel(runs[:1], None, tmp_path)
    assert said == "deit_tiny/dense: process 4711 is another person's: they have to stop it"

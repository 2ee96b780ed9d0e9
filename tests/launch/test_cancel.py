"""`repro cancel`: which runs it stops, and which it leaves alone."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from filelock import FileLock

from repro.cli.main import main
from repro.launch.cancel import cancel
from repro.launch.local_pool import enqueue, run_all
from repro.launch.plan import PlannedRun, plan
from repro.launch.queue import Queue, read_queue
from repro.runs.status import EXIT_STOPPED, Status
from repro.tables.loader import load_table
from repro.training.attempt import execute


@pytest.fixture
def runs(tmp_path: Path) -> list[PlannedRun]:
    """Three independent runs."""
    table = load_table("table1")
    rows = table.select(["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/svite-40"])
    every = plan(table, rows, "smoke", [0], tmp_path)
    for run in every:
        run.create()
    return every


class Worker:
    """A run that ends at once."""

    def has_ended(self) -> bool:
        return True

    def stop(self) -> None:
        raise AssertionError

    def kill(self) -> None:
        raise AssertionError


def test_queued_runs_are_cancelled_and_their_launch_does_not_start_them(runs: list[PlannedRun], tmp_path: Path) -> None:
    first, *waiting = runs
    waiting[0].record.set_status(replace(waiting[0].record.status(), submissions=2, update=7))
    enqueue(runs)
    started, lines = [], []

    def start(run: PlannedRun) -> Worker:
        started.append(run)
        # From another terminal, while the first run is at work.
        run.record.set_status(run.record.status().moved("running", pid=None, host="another-node"))
        cancelled = cancel(runs, None, tmp_path)
        lines.extend([*cancelled.stopping, *cancelled.not_cancelled])
        return Worker()

    assert run_all(runs, 1, start, lambda _: None)
    assert started == [first]
    assert lines == [
        *(f"{run.row.id}: removed from the queue of its launch" for run in waiting),
        "deit_tiny/dense: is running on another-node; stop its launch there (Ctrl-C)",
    ]
    states = [run.record.status() for run in waiting]
    assert [(status.state, status.submissions, status.update) for status in states] == [
        ("cancelled", 2, 7),
        ("cancelled", 0, 0),
    ]


def test_a_process_that_starts_a_cancelled_run_leaves_it(runs: list[PlannedRun], tmp_path: Path) -> None:
    run = runs[0]
    enqueue([run])
    cancel([run], None, tmp_path)
    lines: list[str] = []
    assert execute(run.record.path, log=lines.append) == EXIT_STOPPED
    assert lines == [f"{run.record.path}: stopped by repro cancel, before it started"]
    assert (run.record.status().state, list(run.record.metrics())) == ("cancelled", [])
    enqueue([run])
    assert not run.record.status().is_cancelled_unstarted  # launched again


def test_a_run_that_is_being_started_is_not_cancelled(runs: list[PlannedRun], tmp_path: Path) -> None:
    enqueue(runs[:1])
    with FileLock(runs[0].record.path / "lock"):
        assert cancel(runs[:1], None, tmp_path).not_cancelled == ["deit_tiny/dense: is being started; try again"]
    assert runs[0].record.status().state == "submitted"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, whose id was once that of a run's process."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_process_id_that_has_been_reused_gets_no_signal(
    runs: list[PlannedRun], tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """Slurm does not answer here, so the run may be alive; its process on this machine is not."""
    status = Status("running", host=platform.node(), pid=bystander.pid, job_id="16_3", heartbeat=1.0)
    runs[0].record.set_status(status)
    (line,) = cancel(runs[:1], None, tmp_path).not_cancelled
    assert "make sure that it does not have job 16_3" in line
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.2)


def test_another_users_process_is_left_alone(
    runs: list[PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    runs[0].record.set_status(Status("running", host=platform.node(), pid=4711).moved("running"))
    with FileLock(runs[0].record.path / "lock"):
        (line,) = cancel(runs[:1], None, tmp_path).not_cancelled
    assert line == "deit_tiny/dense: process 4711 belongs to another user, and only they can stop it"


def test_a_failed_run_whose_job_is_ending_stays_failed(
    runs: list[PlannedRun], tmp_path: Path, cluster: FakeSlurm
) -> None:
    queue = pending(cluster, runs[:1])
    failed = Status("failed", heartbeat=time.time(), job_id="7_0", reason="the loss is not finite")
    runs[0].record.set_status(failed)
    assert cancel(runs[:1], queue, tmp_path).stopping == ["deit_tiny/dense: cancelling job 7_0"]
    assert runs[0].record.status() == failed


def pending(cluster: FakeSlurm, runs: list[PlannedRun]) -> Queue:
    """Each run is pending in Slurm, as a task of an array: 7_0, 7_1, ..."""
    lines = [f"7_{index}|repro-table1-x|PENDING||Priority" for index, _ in enumerate(runs)]
    (cluster.folder / "queue").write_text("\n".join(lines) + "\n")
    for index, run in enumerate(runs):
        run.record.set_status(Status(job_id=f"7_{index}").moved("submitted"))
    return read_queue(Path(runs[0].config.run.root), [])


def test_a_job_that_slurm_does_not_cancel_does_not_affect_the_others(
    runs: list[PlannedRun], tmp_path: Path, cluster: FakeSlurm
) -> None:
    queue = pending(cluster, runs)
    cluster.refuses("Kill job error on job id 7_1: Access/permission denied", "7_1")
    cancelled = cancel(runs, queue, tmp_path)
    assert cancelled.stopping == ["deit_tiny/dense: cancelling job 7_0", "deit_tiny/svite-40: cancelling job 7_2"]
    message = "scancel: error: Kill job error on job id 7_1: Access/permission denied"
    assert cancelled.not_cancelled == [f"deit_tiny/svite-30: job 7_1 is not cancelled: {message}"]
    assert [run.record.status().state for run in runs] == ["cancelled", "submitted", "cancelled"]
    assert cluster.queue == ["7_1"]


def test_a_job_that_has_ended_meanwhile_counts_as_cancelled(
    runs: list[PlannedRun], tmp_path: Path, cluster: FakeSlurm
) -> None:
    """Between squeue and scancel; a newer scancel calls that an error."""
    queue = pending(cluster, runs)
    (cluster.folder / "queue").write_text("7_0|repro-table1-x|PENDING||Priority\n")
    cluster.refuses("Kill job error on job id 7_1: Invalid job id specified", "7_1")
    cancelled = cancel(runs, queue, tmp_path)
    assert (len(cancelled.stopping), cancelled.not_cancelled) == (3, [])
    assert [run.record.status().state for run in runs] == ["cancelled"] * 3


def test_a_controller_that_is_down_is_asked_once_and_nothing_is_cancelled(
    runs: list[PlannedRun], tmp_path: Path, cluster: FakeSlurm
) -> None:
    queue = pending(cluster, runs)
    cluster.refuses("Kill job error: Unable to contact slurm controller (connect failure)", "7_0", "7_1", "7_2")
    cancelled = cancel(runs, queue, tmp_path)
    assert (cancelled.stopping, len(cancelled.not_cancelled)) == ([], 3)
    assert {run.record.status().state for run in runs} == {"submitted"}
    assert cluster.cancelled == ["7_0 7_1 7_2"]


def test_the_exit_code_is_1_if_a_run_is_left(
    tmp_path: Path, cluster: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table1", "deit_tiny/dense", "deit_tiny/svite-30", "--scale", "smoke", "--runs", str(tmp_path / "runs")]
    slurm_words = ["launcher=slurm", "launcher.gpus_per_node=0", "tracker=none"]
    with pytest.raises(SystemExit, match="0"):
        main(["launch", *words, *slurm_words, "--yes"])
    cluster.refuses("Kill job error on job id 1_0: Access/permission denied", "1_0")
    with pytest.raises(SystemExit, match="1"):
        main(["cancel", *words])
    output = capsys.readouterr().out
    assert "deit_tiny/svite-30: cancelling job 1_1\ndeit_tiny/dense: job 1_0 is not cancelled: scancel: " in output
    cluster.refuses("", "none")
    with pytest.raises(SystemExit, match="0"):
        main(["cancel", *words])
    assert cluster.queue == []

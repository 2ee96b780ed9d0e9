"""`repro cancel`: what is stopped, and whom it leaves in peace."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from filelock import FileLock

from repro.cli import main
from repro.launch import slurm
from repro.launch.control import cancel
from repro.launch.plan import PlannedRun, plan
from repro.launch.waiting import put_in_line, run_all
from repro.paper_tables import load_table
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

    def stop(self) -> None:
        raise AssertionError

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
        cancelled = cancel(runs, None, tmp_path)
        said.extend([*cancelled.told, *cancelled.left])
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
        assert cancel(runs[:1], None, tmp_path).left == ["deit_tiny/dense: is being started; try again"]
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
    (said,) = cancel(runs[:1], None, tmp_path).left
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
        (said,) = cancel(runs[:1], None, tmp_path).left
    assert said == "deit_tiny/dense: process 4711 is another person's: they have to stop it"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def in_queue(cluster: FakeSlurm, runs: list[PlannedRun]) -> dict[str, slurm.Job]:
    """Each run waits in Slurm, as tasks of an array: 7_0, 7_1, ..."""
    lines = [f"7_{index}|repro-table1-x|PENDING||Priority" for index, _ in enumerate(runs)]
    (cluster.folder / "queue").write_text("\n".join(lines) + "\n")
    for index, run in enumerate(runs):
        run.record.set_status(Status(job_id=f"7_{index}").moved("submitted"))
    return slurm.queue()


def test_a_job_that_slurm_does_not_cancel_changes_nothing_for_the_others(
    runs: list[PlannedRun], tmp_path: Path, cluster: FakeSlurm
) -> None:
    jobs = in_queue(cluster, runs)
    cluster.refuses("Kill job error on job id 7_1: Access/permission denied", "7_1")
    cancelled = cancel(runs, jobs, tmp_path)
    assert cancelled.told == ["deit_tiny/dense: cancelling job 7_0", "deit_tiny/svite-40: cancelling job 7_2"]
    words = "scancel: error: Kill job error on job id 7_1: Access/permission denied"
    assert cancelled.left == [f"deit_tiny/svite-30: job 7_1 is not cancelled: scancel: {words}"]
    assert [run.record.status().state for run in runs] == ["cancelled", "submitted", "cancelled"]
    assert cluster.queue == ["7_1"]


def test_a_job_that_has_ended_meanwhile_is_no_refusal(
    runs: list[PlannedRun], tmp_path: Path, cluster: FakeSlurm
) -> None:
    """Between squeue and scancel; a newer scancel calls that an error."""
    jobs = in_queue(cluster, runs)
    (cluster.folder / "queue").write_text("7_0|repro-table1-x|PENDING||Priority\n")
    cluster.refuses("Kill job error on job id 7_1: Invalid job id specified", "7_1")
    cancelled = cancel(runs, jobs, tmp_path)
    assert (len(cancelled.told), cancelled.left) == (3, [])
    assert [run.record.status().state for run in runs] == ["cancelled"] * 3


@pytest.mark.parametrize(("at_once", "asked"), [(200, "7_0 7_1 7_2"), (2, "7_0 7_1")])
def test_a_controller_that_is_away_is_asked_once_and_nothing_is_called_cancelled(
    runs: list[PlannedRun],
    tmp_path: Path,
    cluster: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    asked: str,
) -> None:
    monkeypatch.setattr(slurm, "AT_ONCE", at_once)
    jobs = in_queue(cluster, runs)
    cluster.refuses("Kill job error: Unable to contact slurm controller (connect failure)", "7_0", "7_1", "7_2")
    cancelled = cancel(runs, jobs, tmp_path)
    assert (cancelled.told, len(cancelled.left)) == ([], 3)
    assert {run.record.status().state for run in runs} == {"submitted"}
    assert cluster.cancelled == [asked]


def test_what_is_left_at_work_is_in_the_exit_code(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table1", "deit_tiny/dense", "deit_tiny/svite-30", "--scale", "smoke", "--runs", str(tmp_path / "runs")]
    slurm_words = ["launcher=slurm", "launcher.gpus_per_node=0", "tracker=none"]
    with pytest.raises(SystemExit, match="0"):
        main(["launch", *words, *slurm_words, "--yes"])
    cluster.refuses("Kill job error on job id 1_0: Access/permission denied", "1_0")
    with pytest.raises(SystemExit, match="1"):
        main(["cancel", *words])
    said = capsys.readouterr().out
    assert "deit_tiny/svite-30: cancelling job 1_1\ndeit_tiny/dense: job 1_0 is not cancelled: scancel: " in said
    cluster.refuses("", "none")
    with pytest.raises(SystemExit, match="0"):
        main(["cancel", *words])
    assert cluster.queue == []

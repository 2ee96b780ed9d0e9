"""What a launch decides, for every state of a record, of Slurm's queue and of the clock."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest
from filelock import FileLock

from repro.interruption import StopFlag
from repro.launch.cancel import cancel
from repro.launch.decide import decide
from repro.launch.local_run import record_exit
from repro.launch.plan import PlannedRun, plan
from repro.launch.queue import Queue
from repro.launch.slurm import Job
from repro.runs.record import Record
from repro.runs.status import STALE_AFTER_S, State, Status
from repro.tables.loader import load_table
from repro.training.heartbeat import Heartbeat

NOW = 1_700_000_000.0
JOB = Job("16_3", "repro-table1-x", "PENDING", "Priority", "")


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    table = load_table("table1")
    (only,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    only.create()
    return only


def queue(*jobs: Job) -> Queue:
    return Queue({job.id: job for job in jobs}, {}, NOW)


def action(run: PlannedRun, status: Status, jobs: Queue | None = None, retry: bool = False) -> str:
    run.record.set_status(status)
    (decision,) = decide([run], jobs, retry, max_attempts=3, now=NOW)
    return decision.action


def test_a_run_waits_for_the_run_that_it_starts_from(tmp_path: Path) -> None:
    table = load_table("table1")
    for launcher, jobs, expected in (
        ("inline", None, "keep"),
        ("slurm", queue(), "keep"),
        ("slurm", queue(JOB), "start"),  # with a dependency
    ):
        words = [f"launcher={launcher}"]
        dense, omp = plan(table, table.select(["deit_tiny/omp-30"]), "smoke", [0], tmp_path / launcher, words)
        for each in (dense, omp):
            each.create()
        job_id = "16_3" if jobs is not None and jobs.jobs else None
        dense.record.set_status(Status("running", heartbeat=NOW - 5, host="another-node", pid=1, job_id=job_id))
        first, second = decide([dense, omp], jobs, False, 3, NOW)
        assert (first.action, second.action) == ("keep", expected)
        assert second.why.startswith("waits for deit_tiny/dense" if expected == "keep" else "not started yet")


def test_an_exit_is_not_written_into_the_status_of_another_process(run: PlannedRun) -> None:
    run.record.set_status(Status("running", heartbeat=NOW, attempt=2))
    with FileLock(run.record.path / "lock"):
        record_exit(run.record, 75)
        record_exit(run.record, -9)
        assert run.record.status().state == "running"
    for other in (Status("submitted", host="another-node", pid=1), Status("running", host=platform.node(), pid=1)):
        run.record.set_status(other)
        record_exit(run.record, 1)
        assert run.record.status() == other, "of another machine, or of a process that lives"
    run.record.set_status(Status("submitted", host=platform.node(), pid=os.getpid(), submissions=2))
    record_exit(run.record, 75)
    stopped = run.record.status()
    assert (stopped.state, stopped.submissions, stopped.pid) == ("planned", 1, None), "stopped before it had begun"
    run.record.set_status(Status("running", heartbeat=NOW, attempt=2))
    record_exit(run.record, 1)
    assert run.record.status().state == "failed"


@pytest.mark.parametrize("code", [1, -15, -9, 75])
def test_a_run_that_was_asked_to_stop_has_not_failed(run: PlannedRun, code: int) -> None:
    """It was importing torch, or was killed by a second Ctrl-C."""
    run.record.set_status(Status("submitted", host=platform.node(), pid=os.getpid(), submissions=2))
    record_exit(run.record, code, was_asked=True)
    status = run.record.status()
    assert (status.state, status.submissions, status.pid) == ("planned", 1, None)
    run.record.set_status(Status("running", heartbeat=NOW, attempt=2, update=7))
    record_exit(run.record, code, was_asked=True)
    assert run.record.status().state == "requeued"
    assert action(run, run.record.status()) == "start"
    run.record.set_status(Status("failed", heartbeat=NOW, attempt=2, reason="the loss is not finite"))
    record_exit(run.record, code, was_asked=True)
    assert run.record.status().state == "failed"


def elsewhere(age_s: float) -> Status:
    return Status("running", heartbeat=NOW - age_s, host="another-node", pid=1, attempt=1)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status(), "start"),
        (Status("failed", heartbeat=NOW), "leave"),
        (Status("cancelled", heartbeat=NOW), "start"),
        (Status("requeued", heartbeat=NOW), "start"),
        (elsewhere(5), "keep"),
        (elsewhere(STALE_AFTER_S + 1), "start"),
        (elsewhere(-STALE_AFTER_S - 1), "start"),  # a heartbeat from the future: the clock went backwards
        (Status("submitted", heartbeat=NOW - 1e6), "keep"),  # submitted to Slurm, which does not answer here
        (Status("submitted", heartbeat=NOW, host=platform.node(), pid=os.getpid()), "keep"),
        (Status("submitted", heartbeat=NOW, host=platform.node(), pid=2**22 + 1), "start"),
        # Its process id is another process's by now: a launch renews the heartbeats of its queue.
        (Status("submitted", heartbeat=NOW - 1e6, host=platform.node(), pid=os.getpid()), "start"),
        (Status("submitted", heartbeat=NOW - 60, host="another-node", pid=1), "keep"),
        (Status("submitted", heartbeat=NOW - 1e6, host="another-node", pid=1), "start"),
        (Status("requeued", heartbeat=NOW - 1e6, job_id="16_3"), "keep"),  # Slurm may have it in its queue
        (Status("requeued", heartbeat=NOW - 1e6, job_id="local-3"), "start"),
        (Status("running", heartbeat=NOW, host=platform.node(), pid=os.getpid()), "start"),  # no lock is held: dead
    ],
)
def test_without_slurm(run: PlannedRun, status: Status, expected: str) -> None:
    assert action(run, status) == expected


@pytest.mark.parametrize("state", ["submitted", "running", "requeued", "cancelled", "failed"])
def test_a_run_with_a_job_in_the_queue_is_not_started(run: PlannedRun, state: State) -> None:
    """Whatever its state: Slurm may have requeued a job that was being stopped."""
    status = Status(state, heartbeat=NOW - 1e6, host="another-node", job_id="16_3", attempt=1, submissions=1)
    for retry in (False, True):
        assert action(run, status, queue(JOB), retry) == "keep"
    assert action(run, status, queue(), retry=True) == "start"


def test_a_run_may_have_a_job_if_slurm_does_not_answer(run: PlannedRun) -> None:
    for state in ("submitted", "running", "requeued"):
        assert action(run, Status(state, heartbeat=NOW - 1e6, host="another-node", job_id="16_3")) == "keep"


def test_a_run_that_may_have_a_job_can_be_cancelled(run: PlannedRun, tmp_path: Path) -> None:
    """In a folder that was copied to a machine without Slurm it would wait forever."""
    for job_id in ("16_3", None):
        run.record.set_status(Status("submitted", heartbeat=NOW - 1e6, job_id=job_id))
        (line,) = cancel([run], None, tmp_path).not_cancelled
        assert f"make sure that it does not have {'job 16_3' if job_id else 'a job of this run'}" in line
        assert run.record.status().state == "cancelled"
        assert [each.action for each in decide([run], None, False, 3)] == ["start"]


def test_a_run_whose_job_is_not_in_the_queue_yet_is_not_cancelled(run: PlannedRun, tmp_path: Path) -> None:
    run.record.set_status(Status("submitted").moved("submitted"))
    assert "try again in two minutes" in cancel([run], queue(), tmp_path).not_cancelled[0]
    assert run.record.status().state == "submitted"


def test_a_job_that_is_not_in_the_queue_yet_is_waited_for(run: PlannedRun) -> None:
    """sbatch timed out, or its launch was killed: the controller may still accept the job."""
    assert action(run, Status("submitted", heartbeat=NOW - 5, submissions=1), queue()) == "keep"
    assert action(run, Status("submitted", heartbeat=NOW - 1e6, submissions=1), queue()) == "start"
    assert action(run, Status("submitted", heartbeat=NOW - 1e6, submissions=3), queue()) == "leave"


def test_a_run_whose_lock_is_held_is_alive(run: PlannedRun) -> None:
    with FileLock(run.record.path / "lock"):
        assert action(run, Status("running", heartbeat=0.0, host=platform.node())) == "keep"


def test_failed_runs_and_those_without_progress_start_only_with_retry(run: PlannedRun) -> None:
    assert action(run, Status("failed", heartbeat=NOW), retry=True) == "start"
    assert action(run, Status("requeued", heartbeat=NOW, submissions=3), retry=True) == "start"


def test_done_and_untrainable_runs_are_left(tmp_path: Path) -> None:
    table = load_table("table1")
    runs = plan(table, table.select(["deit_small/*"]), "smoke", [0], tmp_path)
    decisions = {each.run.row.id: each for each in decide(runs, None, False, 3, now=NOW)}
    missing = [run for run in runs if run.state == "missing"]
    assert all(decisions[run.row.id].action == "leave" for run in missing)


def test_only_progress_resets_the_number_of_submissions(tmp_path: Path) -> None:
    """A run that dies at the same update every time, before it has saved, must reach the limit."""
    status = Status("running", started=time.time(), submissions=2, update=3)
    assert status.moved("requeued").submissions == 2
    beat = Heartbeat(Record(tmp_path), status, StopFlag())
    seen = []
    for update in (1, 2, 3, 4):
        beat.progress(update, 10)
        seen.append(beat.status.submissions)
    assert seen == [2, 2, 2, 0]

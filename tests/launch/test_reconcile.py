"""What a launch decides about runs, whatever their records, Slurm and the clock say."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest
from filelock import FileLock

from repro.launch import slurm
from repro.launch.control import cancel
from repro.launch.inline import note_death
from repro.launch.plan import PlannedRun, plan
from repro.launch.reconcile import decide
from repro.launch.slurm import Job
from repro.paper_tables import load_table
from repro.runs.record import Record
from repro.runs.status import STALE_AFTER_S, State, Status
from repro.training.heartbeat import Heartbeat
from repro.training.interruption import StopFlag

NOW = 1_700_000_000.0
JOB = Job("16_3", "repro-table1-x", "PENDING", "Priority", "")


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    table = load_table("table1")
    (only,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    only.create()
    return only


def action(run: PlannedRun, status: Status, jobs: dict[str, Job] | None = None, retry: bool = False) -> str:
    run.record.set_status(status)
    (decision,) = decide([run], jobs, retry, max_attempts=3, now=NOW)
    return decision.action


def test_a_run_waits_for_the_one_that_it_begins_with_wherever_that_is_at_work(tmp_path: Path) -> None:
    table = load_table("table1")
    for launcher, jobs, expected in (
        ("inline", None, "keep"),
        ("slurm", {}, "keep"),
        ("slurm", {"16_3": JOB}, "start"),  # Slurm holds it back itself
    ):
        words = [f"launcher={launcher}"]
        dense, omp = plan(table, table.select(["deit_tiny/omp-30"]), "smoke", [0], tmp_path / launcher, words)
        for each in (dense, omp):
            each.create()
        job_id = "16_3" if jobs else None
        dense.record.set_status(Status("running", heartbeat=NOW - 5, host="another-node", pid=1, job_id=job_id))
        first, second = decide([dense, omp], jobs, False, 3, NOW)
        assert (first.action, second.action) == ("keep", expected)
        assert second.why.startswith("waits for deit_tiny/dense" if expected == "keep" else "not started yet")


def test_a_death_is_not_written_into_the_attempt_of_somebody_else(run: PlannedRun) -> None:
    run.record.set_status(Status("running", heartbeat=NOW, attempt=2))
    with FileLock(run.record.path / "lock"):
        note_death(run.record.path, 75)
        note_death(run.record.path, -9)
        assert run.record.status().state == "running"
    for other in (Status("submitted", host="another-node", pid=1), Status("running", host=platform.node(), pid=1)):
        run.record.set_status(other)
        note_death(run.record.path, 1)
        assert run.record.status() == other, "of another machine, or of a process that lives"
    run.record.set_status(Status("submitted", host=platform.node(), pid=os.getpid(), submissions=2))
    note_death(run.record.path, 75)
    stopped = run.record.status()
    assert (stopped.state, stopped.submissions, stopped.pid) == ("planned", 1, None), "stopped before it had begun"
    run.record.set_status(Status("running", heartbeat=NOW, attempt=2))
    note_death(run.record.path, 1)
    assert run.record.status().state == "failed"


@pytest.mark.parametrize("code", [None, 1, -15, -9, 75])
def test_what_a_launch_has_asked_to_stop_has_not_failed_however_it_ended(run: PlannedRun, code: int | None) -> None:
    """It was at its imports, or was ended at once by a second Ctrl-C."""
    run.record.set_status(Status("submitted", host=platform.node(), pid=os.getpid(), submissions=2))
    note_death(run.record.path, code, is_asked=True)
    status = run.record.status()
    assert (status.state, status.submissions, status.pid) == ("planned", 1, None)
    run.record.set_status(Status("running", heartbeat=NOW, attempt=2, update=7))
    note_death(run.record.path, code, is_asked=True)
    assert run.record.status().state == "requeued"
    assert action(run, run.record.status()) == "start"
    run.record.set_status(Status("failed", heartbeat=NOW, attempt=2, reason="the loss is not finite"))
    note_death(run.record.path, code, is_asked=True)
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
        (Status("submitted", heartbeat=NOW - 1e6), "keep"),  # handed to a Slurm that cannot be asked from here
        (Status("submitted", heartbeat=NOW, host=platform.node(), pid=os.getpid()), "keep"),
        (Status("submitted", heartbeat=NOW, host=platform.node(), pid=2**22 + 1), "start"),
        # Its number is another process's by now: a launch renews the heartbeat of its line.
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
def test_what_slurm_has_is_never_started_a_second_time(run: PlannedRun, state: State) -> None:
    """Whatever the status says: a job that was being stopped may have been requeued by Slurm itself."""
    status = Status(state, heartbeat=NOW - 1e6, host="another-node", job_id="16_3", attempt=1, submissions=1)
    for retry in (False, True):
        assert action(run, status, {"16_3": JOB}, retry) == "keep"
    assert action(run, status, {}, retry=True) == "start"


def test_slurm_that_cannot_be_asked_may_have_the_job(run: PlannedRun) -> None:
    for state in ("submitted", "running", "requeued"):
        assert action(run, Status(state, heartbeat=NOW - 1e6, host="another-node", job_id="16_3")) == "keep"


def test_what_slurm_may_have_can_be_given_up_by_hand(run: PlannedRun, tmp_path: Path) -> None:
    """A folder that was taken to a machine without Slurm would wait for ever; a person knows more."""
    for job_id in ("16_3", None):
        run.record.set_status(Status("submitted", heartbeat=NOW - 1e6, job_id=job_id))
        (said,) = cancel([run], None, tmp_path).left
        assert f"make sure that it does not have {'job 16_3' if job_id else 'a job of this run'}" in said
        assert run.record.status().state == "cancelled"
        assert [each.action for each in decide([run], None, False, 3)] == ["start"]


def test_what_slurm_has_not_shown_yet_cannot_be_cancelled_yet(run: PlannedRun, tmp_path: Path) -> None:
    run.record.set_status(Status("submitted").moved("submitted"))
    assert "try again in two minutes" in cancel([run], {}, tmp_path).left[0]
    assert run.record.status().state == "submitted"


def test_a_failed_run_whose_job_is_ending_stays_failed(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "cancel", lambda _: {})
    run.record.set_status(Status("failed", heartbeat=NOW, job_id="16_3", reason="the loss is not finite"))
    cancel([run], {"16_3": JOB}, tmp_path)
    assert run.record.status().reason == "the loss is not finite"


def test_a_job_without_a_number_yet_is_waited_for(run: PlannedRun) -> None:
    """sbatch gave up waiting for an answer, or a launch was killed there: the controller may still take the job."""
    assert action(run, Status("submitted", heartbeat=NOW - 5, submissions=1), {}) == "keep"
    assert action(run, Status("submitted", heartbeat=NOW - 1e6, submissions=1), {}) == "start"
    assert action(run, Status("submitted", heartbeat=NOW - 1e6, submissions=3), {}) == "leave"  # thrice for nothing


def test_a_held_lock_is_life_whatever_the_heartbeat_says(run: PlannedRun) -> None:
    with FileLock(run.record.path / "lock"):
        assert action(run, Status("running", heartbeat=0.0, host=platform.node())) == "keep"


def test_failed_and_capped_runs_start_with_retry_only(run: PlannedRun) -> None:
    assert action(run, Status("failed", heartbeat=NOW), retry=True) == "start"
    assert action(run, Status("requeued", heartbeat=NOW, submissions=3), retry=True) == "start"


def test_done_and_untrainable_runs_are_left(tmp_path: Path) -> None:
    table = load_table("table1")
    runs = plan(table, table.select(["deit_small/*"]), "smoke", [0], tmp_path)
    decisions = {each.run.row.id: each for each in decide(runs, None, False, 3, now=NOW)}
    missing = [run for run in runs if run.state == "missing"]
    assert all(decisions[run.row.id].action == "leave" for run in missing)


def test_only_getting_further_ends_a_row_of_submissions_in_vain(tmp_path: Path) -> None:
    """A run that dies at the same update every time, before it has saved, must run out of submissions."""
    status = Status("running", started=time.time(), submissions=2, update=3)
    assert status.moved("requeued").submissions == 2
    beat = Heartbeat(Record(tmp_path), status, StopFlag())
    seen = []
    for update in (1, 2, 3, 4):
        beat.progress(update, 10)
        seen.append(beat.status.submissions)
    assert seen == [2, 2, 2, 0]

"""Whether a stopped job requeues itself, by what Slurm shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from repro.config.compose import compose
from repro.launch.requeue import RequeuePolicy
from repro.runs.record import Record, record_for

JOB = "16_3"
# As Slurm 22.05 shows a job while its processes end: after scancel, after its own requeue, with PreemptMode=CANCEL.
CANCELLED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=0 EndTime=2026-01-01T10:00:00 PreemptTime=None"
REQUEUED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=1 EndTime=2026-01-01T11:00:00 SuspendTime=None"
DROPPED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=0 PreemptTime=2026-01-01T09:59:00"
RUNNING = "JobState=RUNNING Reason=None Requeue=1 Restarts=0 EndTime=2026-01-01T10:00:00 PreemptTime=None"


@dataclass
class Slurm:
    """A scontrol that shows a given job, and notes its arguments."""

    folder: Path

    def shows(self, text: str) -> None:
        script = self.folder / "scontrol"
        script.write_text(f'#!/bin/sh\necho "$*" >> {self.folder}/asked\necho "{text}"\n')
        script.chmod(0o755)

    @property
    def requeued(self) -> list[str]:
        lines = (self.folder / "asked").read_text().splitlines()
        return [line.removeprefix("requeue ") for line in lines if line.startswith("requeue ")]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    return Slurm(tmp_path)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    config = compose(["scale=smoke"])
    made = record_for(tmp_path / "runs", config, "table1", "deit_tiny/dense")
    made.create(config, "table1", "deit_tiny/dense")
    assert made.claim_attempt() == 1
    made.set_status(made.status().moved("requeued", job_id=JOB, reason="stopped by SIGTERM; resumes from update 7"))
    return made


def stop(record: Record, requeue: bool = True, max_requeues: int = 3, attempt: int = 1) -> None:
    RequeuePolicy(requeue, max_requeues).after_stop(record, JOB, attempt)


def test_a_running_job_requeues_itself_by_its_own_id(slurm: Slurm, record: Record) -> None:
    slurm.shows(RUNNING)
    stop(record)
    assert slurm.requeued == [JOB]  # not by the raw id, which may be that of the whole array
    assert record.status().state == "requeued"


@pytest.mark.parametrize("shown", [REQUEUED, DROPPED])
def test_a_job_that_slurm_ends_but_no_user_cancelled_stays_requeued(slurm: Slurm, record: Record, shown: str) -> None:
    slurm.shows(shown)
    stop(record)
    assert slurm.requeued == []
    assert (record.status().state, record.status().reason) == ("requeued", "stopped by SIGTERM; resumes from update 7")


def test_a_cancelled_job_is_not_requeued(slurm: Slurm, record: Record) -> None:
    slurm.shows(CANCELLED)
    stop(record)
    assert slurm.requeued == []
    assert record.status().state == "cancelled"


def test_a_job_on_its_second_start_that_is_cancelled_was_not_requeued(
    slurm: Slurm, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    slurm.shows(REQUEUED)  # one restart, of which the job knows: it is the one that is running now
    stop(record)
    assert record.status().state == "cancelled"


@pytest.mark.parametrize(("requeue", "most"), [(False, 3), (True, 0)])
def test_a_job_that_may_not_requeue_itself_is_left_to_the_next_launch(
    slurm: Slurm, record: Record, requeue: bool, most: int
) -> None:
    slurm.shows(RUNNING)
    stop(record, requeue, most)
    assert slurm.requeued == []
    assert record.status().state == "requeued"


def test_starts_without_progress_are_limited(slurm: Slurm, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that is too short: each attempt is stopped before its first update."""
    slurm.shows(RUNNING)
    policy = RequeuePolicy(True, 100, max_attempts=3)
    record.set_status(record.status().moved("requeued", submissions=1))  # by the launch
    for restart in range(3):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        if restart:
            assert policy.count_start(record)
        policy.after_stop(record, JOB, 1)
        assert record.status().submissions == restart + 1
        assert len(slurm.requeued) == min(2, restart + 1)
    assert record.status().state == "failed"
    assert "started 3 times without progress beyond update 0" in (record.status().reason or "")


def test_a_run_with_progress_is_requeued_without_limit(
    slurm: Slurm, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.shows(RUNNING)
    policy = RequeuePolicy(True, 100, max_attempts=3)
    for restart in range(1, 10):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        assert policy.count_start(record)
        record.set_status(record.status().moved("requeued", submissions=0, update=restart))  # as the heartbeat does
        policy.after_stop(record, JOB, 1)
    assert slurm.requeued == [JOB] * 9
    assert record.status().state == "requeued"


@pytest.mark.parametrize(("restarts", "submissions", "state"), [(1, 3, "failed"), (101, 0, "requeued")])
def test_a_job_that_slurm_requeues_too_often_does_not_start(
    record: Record, monkeypatch: pytest.MonkeyPatch, restarts: int, submissions: int, state: str
) -> None:
    """A run that crashes its node cannot write its end: it is counted when it starts."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    record.set_status(record.status().moved("running", submissions=submissions))
    assert not RequeuePolicy(True, 100, max_attempts=3).count_start(record)
    assert record.status().state == state


def test_an_older_attempt_does_not_requeue_the_job_of_a_newer_one(slurm: Slurm, record: Record) -> None:
    slurm.shows(CANCELLED)
    record.claim_attempt()
    stop(record)
    assert not (slurm.folder / "asked").exists()
    assert record.status().state == "requeued"


def test_a_slurm_that_does_not_answer_changes_nothing(
    slurm: Slurm, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.shows("")
    (slurm.folder / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    stop(record)
    assert "the next launch submits this run again" in capsys.readouterr().err
    assert record.status().state == "requeued"

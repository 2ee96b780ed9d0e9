"""What a job that was told to stop does with itself, by what Slurm says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from repro.composition import compose
from repro.launch.job import RunJob
from repro.runs.record import Record, record_for

JOB = "16_3"
# As Slurm 22.05 shows a job while its processes end: by scancel, by a requeue of its own, by PreemptMode=CANCEL.
CANCELLED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=0 EndTime=2026-01-01T10:00:00 PreemptTime=None"
REQUEUED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=1 EndTime=2026-01-01T11:00:00 SuspendTime=None"
DROPPED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=0 PreemptTime=2026-01-01T09:59:00"
RUNNING = "JobState=RUNNING Reason=None Requeue=1 Restarts=0 EndTime=2026-01-01T10:00:00 PreemptTime=None"


@dataclass
class Slurm:
    """A scontrol that shows a job as it is told, and notes what it is asked to do."""

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
    made.set_status(made.status().moved("requeued", job_id=JOB, reason="stopped by SIGTERM; goes on from update 7"))
    return made


def stop(record: Record, requeue: bool = True, max_requeues: int = 3, attempt: int = 1) -> None:
    RunJob(record.path, requeue, max_requeues)._after_stop(record, JOB, attempt)


def test_a_running_job_requeues_itself_by_its_own_id(slurm: Slurm, record: Record) -> None:
    slurm.shows(RUNNING)
    stop(record)
    assert slurm.requeued == [JOB]  # not 19, the number behind it: that may be the whole array's
    assert record.status().state == "requeued"


@pytest.mark.parametrize("shown", [REQUEUED, DROPPED])
def test_a_job_that_slurm_ends_and_nobody_cancelled_stays_requeued(slurm: Slurm, record: Record, shown: str) -> None:
    slurm.shows(shown)
    stop(record)
    assert slurm.requeued == []
    assert (record.status().state, record.status().reason) == ("requeued", "stopped by SIGTERM; goes on from update 7")


def test_a_cancelled_job_says_so_and_does_not_come_back(slurm: Slurm, record: Record) -> None:
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


def test_an_older_attempt_does_nothing_to_the_job_of_a_newer_one(slurm: Slurm, record: Record) -> None:
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

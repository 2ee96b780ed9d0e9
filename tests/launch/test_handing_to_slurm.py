"""Runs handed to a Slurm that answers late, wrongly or not at all: never lost, never started twice, never unasked."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from repro.cli import main
from repro.errors import UserError
from repro.launch import launching, slurm, submit
from repro.launch.arrays import Place, places
from repro.launch.launching import Wishes, launch
from repro.launch.overview import UNASKED
from repro.launch.plan import PlannedRun, plan
from repro.paper_tables import load_table

ROWS = ("deit_tiny/dense", "deit_tiny/svite-30")
SLURM = ("launcher=slurm", "launcher.gpus_per_node=0", "tracker=none")
NO_ANSWER = "error sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def runs_of(root: Path, rows: Sequence[str] = ROWS, *overrides: str, scale: str = "smoke") -> list[PlannedRun]:
    table = load_table("table1")
    return plan(table, table.select(rows), scale, [0], root, [*(overrides or SLURM)])


def start(root: Path, runs: Sequence[PlannedRun], yes: bool = True) -> str:
    """What `repro launch` says."""
    out = io.StringIO()
    launch("table1", runs, Wishes(False, yes, 5, root), Console(file=out, width=200))
    return out.getvalue()


def tokens(root: Path) -> list[Path]:
    return list((root / ".launch" / "tokens").glob("*.json"))


def an_hour_later(root: Path, runs: Sequence[PlannedRun]) -> None:
    for file in tokens(root):
        token = json.loads(file.read_text())
        file.write_text(json.dumps({**token, "time": token["time"] - 3600}))
    for run in runs:
        status = run.record.status()
        run.record.set_status(replace(status, heartbeat=status.heartbeat - 3600))


def test_an_sbatch_that_gives_up_waiting_may_have_submitted(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    cluster.will("taken", NO_ANSWER)
    with pytest.raises(UserError, match=r"Socket timed out .*Slurm may have these 2 runs all the same"):
        start(tmp_path, runs)
    assert cluster.queue == ["1_0", "1_1"]
    assert len(tokens(tmp_path)) == 1
    cluster.will("taken")
    said = start(tmp_path, runs)
    # The pickles were never put in place: those two can do nothing.
    assert "0 of its jobs kept, 2 cancelled" in said
    assert "submitted 2 runs in 1 arrays" in said
    assert cluster.queue == ["2_0", "2_1"]
    assert [(run.record.status().job_id, run.record.status().submissions) for run in runs] == [("2_0", 1), ("2_1", 1)]
    assert not tokens(tmp_path)


@pytest.mark.parametrize("launcher", ["slurm", "inline"])
def test_what_slurm_may_still_take_is_not_started_anywhere(tmp_path: Path, cluster: FakeSlurm, launcher: str) -> None:
    runs = runs_of(tmp_path)
    cluster.will(NO_ANSWER)
    with pytest.raises(UserError, match="Slurm may have"):
        start(tmp_path, runs)
    cluster.will("taken")
    said = start(tmp_path, runs_of(tmp_path, ROWS, f"launcher={launcher}", "tracker=none"))
    assert "2 runs were handed to Slurm" in said
    assert "no job seen yet" in said
    assert [run.record.status().state for run in runs] == ["submitted", "submitted"]
    assert (cluster.submissions, len(tokens(tmp_path))) == (1, 1)
    an_hour_later(tmp_path, runs)
    assert "submitted 2 runs in 1 arrays" in start(tmp_path, runs)
    assert cluster.queue == ["2_0", "2_1"]
    assert not tokens(tmp_path)


def test_what_slurm_refuses_can_be_launched_again_at_once(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    cluster.will("error sbatch: error: Batch job submission failed: Invalid account or account/partition combination")
    with pytest.raises(UserError, match=r"sbatch: .*Invalid account"):
        start(tmp_path, runs)
    assert [run.record.status().state for run in runs] == ["planned", "planned"]
    assert not tokens(tmp_path)
    cluster.will("taken")
    assert "submitted 2 runs in 1 arrays" in start(tmp_path, runs)


def test_a_refusal_that_the_queue_contradicts_is_none(tmp_path: Path, cluster: FakeSlurm) -> None:
    cluster.will("taken", "error sbatch: error: a plugin of the site says no")
    with pytest.raises(UserError, match="Slurm may have"):
        start(tmp_path, runs_of(tmp_path))
    assert len(tokens(tmp_path)) == 1


@pytest.mark.parametrize(("name", "value"), [("SQUEUE_STATES", "RUNNING"), ("SBATCH_JOB_NAME", "mine")])
def test_what_a_person_has_set_for_their_own_commands_is_not_for_ours(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    runs = runs_of(tmp_path)
    start(tmp_path, runs)
    assert "nothing to submit" in start(tmp_path, runs)
    assert cluster.queue == ["1_0", "1_1"]
    assert os.environ[name] == value


def test_jobs_in_a_partition_that_the_site_hides_are_known(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    start(tmp_path, runs)
    queue = cluster.folder / "queue"
    queue.write_text(queue.read_text().replace("Priority", "hidden"))
    assert "nothing to submit" in start(tmp_path, runs)


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("unknown", ["61001", str(os.getuid())])
def test_a_user_whom_the_site_does_not_know_hides_no_jobs(
    tmp_path: Path, cluster: FakeSlurm, code: int, unknown: str
) -> None:
    """squeue leaves their jobs out, and only says so (22.05) or fails: of a run that is at work it shows nothing."""
    runs = runs_of(tmp_path)
    start(tmp_path, runs)
    for run in runs:
        run.record.set_status(replace(run.record.status(), user=61001))
    asks = f"""#!/bin/sh
case "$*" in *--user=*{unknown}*) echo "squeue: error: Invalid user: {unknown}" >&2; exit {code};; esac
cat {cluster.folder}/queue
"""
    (cluster.folder / "squeue").write_text(asks)
    said = start(tmp_path, runs)
    assert "Slurm has job 1_0: pending" in said
    assert "nothing to submit" in said
    assert cluster.submissions == 1


def test_a_squeue_that_fails_starts_nothing(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    start(tmp_path, runs)
    (cluster.folder / "squeue").write_text('#!/bin/sh\necho "squeue: error: Invalid user: 61001" >&2; exit 1\n')
    with pytest.raises(UserError, match=r"^squeue: squeue: error: Invalid user: 61001$"):
        start(tmp_path, runs)
    assert cluster.submissions == 1


def test_only_the_cluster_of_a_job_that_is_launched_from_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_MEM_PER_CPU", "SLURM_NTASKS", "SRUN_DEBUG", "PMI_RANK")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for name in names:
        monkeypatch.setenv(name, "1")
    assert set(names) <= set(slurm.environment()), "a person's own, outside any job"
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert {*names, "SLURM_JOB_ID"} & set(slurm.environment()) == {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}


def test_a_status_says_that_slurm_was_not_asked(
    tmp_path: Path, cluster: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path / "runs", runs_of(tmp_path / "runs"))
    words = ["status", "table1", *ROWS, "--scale", "smoke", "--runs", str(tmp_path / "runs")]
    for answer, is_told in (("exit 1", True), (f"cat {cluster.folder}/queue", False)):
        (cluster.folder / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert (UNASKED in capsys.readouterr().out) == is_told


def test_a_run_that_begins_with_one_in_the_queue_waits_for_its_job(tmp_path: Path, cluster: FakeSlurm) -> None:
    start(tmp_path, runs_of(tmp_path))
    said = start(tmp_path, runs_of(tmp_path, [*ROWS, "deit_tiny/omp-30"]))
    assert "submitted 1 runs in 1 arrays" in said
    assert cluster.asked("dependency") == ["afterok:1_0"]
    assert cluster.queue == ["1_0", "1_1", "2"]


def test_what_was_not_counted_as_a_try_is_not_taken_back_as_one(tmp_path: Path, cluster: FakeSlurm) -> None:
    """omp-30 was tried twice before; this time it only waited for dense, in a job that its launch did not finish."""
    start(tmp_path, runs_of(tmp_path))
    *_, omp = runs = runs_of(tmp_path, [*ROWS, "deit_tiny/omp-30"])
    omp.create()
    omp.record.set_status(replace(omp.record.status(), submissions=2))
    cluster.will("taken", NO_ANSWER)
    with pytest.raises(UserError, match="Slurm may have these 1 runs"):
        start(tmp_path, runs)
    assert omp.record.status().submissions == 2
    cluster.will("taken")
    assert "0 of its jobs kept, 1 cancelled" in start(tmp_path, runs)
    assert (omp.record.status().job_id, omp.record.status().submissions) == ("3", 2)


@pytest.mark.parametrize("held_s", [0.2, 60.0])
def test_a_lock_that_somebody_looks_at_or_that_hangs_loses_no_id(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch, held_s: float
) -> None:
    """`repro status` takes a run's lock to look at it, at the very moment when sbatch has answered."""
    monkeypatch.setattr(submit, "NOTE_WAIT_S", 0.5 if held_s > 1 else 30.0)
    runs = runs_of(tmp_path)
    for run in runs:
        run.create()
    looking = FileLock(runs[0].record.path / "lock", thread_local=False)
    looking.acquire()
    looked = threading.Timer(held_s, looking.release)
    looked.start()
    start(tmp_path, runs)
    looked.cancel()
    looking.release()
    assert [run.record.status().job_id for run in runs] == ["1_0", "1_1"]


def test_a_job_that_runs_by_now_has_said_so_itself(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, ROWS[:1])
    run.create()
    running = run.record.status().moved("running", job_id="7")
    run.record.set_status(running)
    with FileLock(run.record.path / "lock"):
        submit.note_id(run.record, "8")
    assert run.record.status() == running


def test_all_arrays_of_a_launch_share_its_places(tmp_path: Path, cluster: FakeSlurm) -> None:
    """MaxArraySize=4 allows three tasks; omp-30 waits for dense in a job of its own."""
    rows = ["dense", "svite-30", "svite-40", "s2vite-30", "s2vite-40", "omp-30"]
    runs = runs_of(tmp_path, [f"deit_tiny/{row}" for row in rows], *SLURM, "launcher.parallel=4")
    assert "submitted 6 runs in 3 arrays" in start(tmp_path, runs)
    assert cluster.asked("array") == ["0-2%2", "0-1%1"]
    assert cluster.asked("dependency") == ["afterok:1_0"]
    second = tmp_path / "second"
    start(second, runs_of(second, [f"deit_tiny/{row}" for row in rows], *SLURM, "launcher.parallel=2"))
    assert cluster.asked("array")[2:] == ["0-2%1", "0-1%1"]
    assert cluster.asked("dependency")[1:] == ["afterok:4_0,afterany:5"]


def test_what_begins_with_a_run_that_slurm_has_waits_for_that_job(tmp_path: Path, cluster: FakeSlurm) -> None:
    """Launched one after the other: the job to wait for is known by the origin's record alone."""
    start(tmp_path, runs_of(tmp_path, ROWS))  # dense is 1_0
    runs = runs_of(tmp_path, ["deit_tiny/omp-30"])
    assert "submitted 1 runs in 1 arrays" in start(tmp_path, runs)
    assert (cluster.queue, cluster.asked("dependency")) == (["1_0", "1_1", "2"], ["afterok:1_0"])
    assert cluster.asked("kill-on-invalid-dep") == ["yes"]
    # It may never start: that is no try of its own.
    assert [run.record.status().submissions for run in runs] == [1, 0]


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), parallel=st.integers(1, 30))
def test_never_more_tasks_at_once_than_places(sizes: list[int], parallel: int) -> None:
    shared = places(sizes, parallel)
    assert all(1 <= place.parallel <= size for place, size in zip(shared, sizes, strict=True))
    heads = [place for place in shared if place.after is None]
    # Each array that waits does so for one of its own, and with no more tasks than that one.
    waited_for = [place.after for place in shared if place.after is not None]
    assert len(set(waited_for)) == len(waited_for)
    assert all(place.parallel <= shared[place.after].parallel for place in shared if place.after is not None)
    assert sum(place.parallel for place in heads) == min(parallel, sum(sizes))


def test_many_small_arrays_take_no_places_from_a_large_one() -> None:
    """Four pairs that wait for runs of the first array: one place for all of them, three for the fifty."""
    assert places([50, 2, 2, 2, 2], 4) == [Place(3), Place(1), Place(1, 1), Place(1, 2), Place(1, 3)]
    assert places([50, 2, 2, 2, 2], 16) == [Place(12), Place(1), Place(1), Place(1), Place(1)]
    assert places([3, 1], 16) == [Place(3), Place(1)]


def answering(text: str, monkeypatch: pytest.MonkeyPatch, meanwhile: object = None) -> list[str]:
    """A terminal where somebody types `text` at the question; returns what was asked."""
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        if callable(meanwhile):
            meanwhile()
        return text

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    return asked


def test_only_what_the_plan_showed_is_started(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the runs is alive when the plan is shown and dies at the question; omp-30 begins with its weights."""
    runs = runs_of(tmp_path, [*ROWS, "deit_tiny/omp-30"])
    runs[0].create()
    alive = replace(runs[0].record.status(), state="running", job_id="99", heartbeat=1.0)
    runs[0].record.set_status(alive)
    (cluster.folder / "queue").write_text("99|repro-table1-x|RUNNING|node|None\n98|other|RUNNING|node|None\n")
    asked = answering("y", monkeypatch, lambda: (cluster.folder / "queue").write_text(""))
    said = start(tmp_path, runs, yes=False)
    assert len(asked) == 1
    assert "a launch would start 2" in said
    assert "not started: 2 runs that the plan did not show" in said
    assert "submitted 1 runs in 1 arrays" in said
    assert [run.record.status().state for run in runs] == ["running", "submitted", "planned"]


@pytest.mark.parametrize("launcher", ["inline", "local", "slurm"])
def test_published_length_is_asked_for_on_every_launcher(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    runs = runs_of(tmp_path, ROWS, f"launcher={launcher}", "data.root=/nowhere", scale="paper")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UserError, match=r"2 runs at scale paper.*say --yes"):
        start(tmp_path, runs, yes=False)
    answering("", monkeypatch)
    with pytest.raises(UserError, match="nothing was started"):
        start(tmp_path, runs, yes=False)
    assert not any(run.record.path.exists() for run in runs)
    assert cluster.submissions == 0


def test_a_small_run_on_this_machine_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering("n", monkeypatch)
    runs = runs_of(tmp_path, ROWS, "launcher=inline")
    wishes = Wishes(False, False, 5, tmp_path)
    assert launching.confirm(runs, None, wishes, Console(file=io.StringIO())) is None
    assert not asked

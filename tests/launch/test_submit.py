"""Runs submitted to a Slurm that answers late, wrongly or not at all: none is lost, started twice or unconfirmed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from repro.cli.main import main
from repro.errors import UserError, count_of
from repro.launch.arrays import Slots, share_parallelism
from repro.launch.confirm import confirm
from repro.launch.decide import decide
from repro.launch.launch import LaunchOptions, launch
from repro.launch.manifest import Manifest, read_manifest
from repro.launch.plan import PlannedRun, plan
from repro.launch.print_plan import print_plan
from repro.launch.queue import read_queue
from repro.launch.status import run_statuses
from repro.launch.status_table import NO_SLURM
from repro.launch.task import may_start
from repro.tables.loader import load_table

ROWS = ("deit_tiny/dense", "deit_tiny/svite-30")
SLURM = ("launcher=slurm", "launcher.gpus_per_node=0", "tracker=none")
NO_ANSWER = "error sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


def runs_of(root: Path, rows: Sequence[str] = ROWS, *overrides: str, scale: str = "smoke") -> list[PlannedRun]:
    table = load_table("table1")
    return plan(table, table.select(rows), scale, [0], root, [*(overrides or SLURM)])


def start(root: Path, runs: Sequence[PlannedRun], yes: bool = True) -> str:
    """The output of a launch."""
    out = io.StringIO()
    launch("table1", runs, LaunchOptions(False, yes, 5, root), Console(file=out, width=200))
    return out.getvalue()


def manifests(root: Path) -> list[Manifest]:
    found = [read_manifest(root, file.stem) for file in sorted((root / ".launch" / "arrays").glob("*.json"))]
    return sorted(filter(None, found), key=lambda manifest: manifest.submitted)


def job_ids(root: Path, runs: Sequence[PlannedRun]) -> list[str | None]:
    """The job of each run, as `repro status` shows it."""
    return [status.job_id for status in run_statuses(runs, read_queue(root, []))]


def an_hour_later(runs: Sequence[PlannedRun]) -> None:
    for run in runs:
        status = run.record.status()
        run.record.set_status(replace(status, heartbeat=status.heartbeat - 3600))


@pytest.mark.parametrize("launcher", ["slurm", "inline"])
def test_jobs_of_an_sbatch_that_timed_out_are_kept(tmp_path: Path, cluster: FakeSlurm, launcher: str) -> None:
    """Slurm has them, and each finds its run by the manifest: nothing is lost, nothing is started twice."""
    runs = runs_of(tmp_path)
    cluster.will("taken", NO_ANSWER)
    with pytest.raises(UserError, match=r"Socket timed out .*Slurm may have accepted 2 runs"):
        start(tmp_path, runs)
    assert job_ids(tmp_path, runs) == ["1_0", "1_1"]
    an_hour_later(runs)
    output = start(tmp_path, runs_of(tmp_path, ROWS, f"launcher={launcher}", "tracker=none"))
    assert "not started: deit_tiny/dense: Slurm job 1_0 is pending" in output
    assert cluster.queue == ["1_0", "1_1"]
    (manifest,) = manifests(tmp_path)
    assert [may_start(manifest, run.record) for run in runs] == [True, True]


@pytest.mark.parametrize("launcher", ["slurm", "inline"])
def test_runs_that_slurm_may_still_accept_are_not_started(tmp_path: Path, cluster: FakeSlurm, launcher: str) -> None:
    runs = runs_of(tmp_path)
    cluster.will(NO_ANSWER)
    with pytest.raises(UserError, match="Slurm may have"):
        start(tmp_path, runs)
    cluster.will("taken")
    output = start(tmp_path, runs_of(tmp_path, ROWS, f"launcher={launcher}", "tracker=none"))
    assert "not in its queue yet" in output
    assert [run.record.status().state for run in runs] == ["submitted", "submitted"]
    assert cluster.submissions == 1
    an_hour_later(runs)
    assert "submitted 2 runs in 1 array" in start(tmp_path, runs)
    assert cluster.queue == ["2_0", "2_1"]
    first, second = manifests(tmp_path)
    # If the first array comes after all, its tasks leave the runs to the second one.
    assert [may_start(first, run.record) for run in runs] == [False, False]
    assert [may_start(second, run.record) for run in runs] == [True, True]


def test_a_manifest_names_the_run_of_each_task_for_good(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    start(tmp_path, runs)
    (manifest,) = manifests(tmp_path)
    assert [manifest.record(tmp_path, index) for index in range(2)] == [runs[0].record, runs[1].record]
    assert [manifest.index_of(tmp_path, run.record) for run in runs] == [0, 1]
    assert [manifest.task_id(index) for index in range(2)] == ["1_0", "1_1"]
    assert manifest.job_name in (cluster.folder / "queue").read_text()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert manifest.record(moved, 1).path == moved / runs[1].record.path.relative_to(tmp_path)


def test_runs_that_slurm_refuses_can_be_launched_again_at_once(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    cluster.will("error sbatch: error: Batch job submission failed: Invalid account or account/partition combination")
    with pytest.raises(UserError, match=r"sbatch: .*Invalid account"):
        start(tmp_path, runs)
    assert [run.record.status().state for run in runs] == ["planned", "planned"]
    assert not manifests(tmp_path)
    cluster.will("taken")
    assert "submitted 2 runs in 1 array" in start(tmp_path, runs)


def test_a_refusal_that_the_queue_contradicts_is_none(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    cluster.will("taken", "error sbatch: error: a plugin of the site says no")
    with pytest.raises(UserError, match="Slurm may have"):
        start(tmp_path, runs)
    assert job_ids(tmp_path, runs) == ["1_0", "1_1"]


@pytest.mark.parametrize(("name", "value"), [("SQUEUE_STATES", "RUNNING"), ("SBATCH_JOB_NAME", "mine")])
def test_users_defaults_for_slurm_commands_do_not_apply(
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
def test_a_user_unknown_to_squeue_hides_no_jobs(tmp_path: Path, cluster: FakeSlurm, code: int, unknown: str) -> None:
    """squeue omits their jobs, with a message only (22.05) or an error: it would hide a running job."""
    runs = runs_of(tmp_path)
    start(tmp_path, runs)
    for run in runs:
        run.record.set_status(replace(run.record.status(), user=61001))
    asks = f"""#!/bin/sh
case "$*" in *--user=*{unknown}*) echo "squeue: error: Invalid user: {unknown}" >&2; exit {code};; esac
cat {cluster.folder}/queue
"""
    (cluster.folder / "squeue").write_text(asks)
    output = start(tmp_path, runs)
    assert "Slurm job 1_0 is pending" in output
    assert "nothing to submit" in output
    assert cluster.submissions == 1


def test_a_squeue_that_fails_starts_nothing(tmp_path: Path, cluster: FakeSlurm) -> None:
    runs = runs_of(tmp_path)
    start(tmp_path, runs)
    (cluster.folder / "squeue").write_text('#!/bin/sh\necho "squeue: error: Invalid user: 61001" >&2; exit 1\n')
    with pytest.raises(UserError, match=r"^squeue: error: Invalid user: 61001$"):
        start(tmp_path, runs)
    assert cluster.submissions == 1


def test_status_notes_that_slurm_does_not_answer(
    tmp_path: Path, cluster: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path / "runs", runs_of(tmp_path / "runs"))
    words = ["status", "table1", *ROWS, "--scale", "smoke", "--runs", str(tmp_path / "runs")]
    for answer, is_noted in (("exit 1", True), (f"cat {cluster.folder}/queue", False)):
        (cluster.folder / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert (NO_SLURM in capsys.readouterr().out) == is_noted


def test_a_run_waits_for_the_job_of_the_run_that_it_starts_from(tmp_path: Path, cluster: FakeSlurm) -> None:
    start(tmp_path, runs_of(tmp_path))
    output = start(tmp_path, runs_of(tmp_path, [*ROWS, "deit_tiny/omp-30"]))
    assert "submitted 1 run in 1 array" in output
    assert cluster.asked("dependency") == ["afterok:1_0"]
    assert cluster.queue == ["1_0", "1_1", "2"]


def test_a_launch_waits_for_no_lock_of_a_run(tmp_path: Path, cluster: FakeSlurm) -> None:
    """`repro status` holds it for a moment, and a process that hangs for hours."""
    runs = runs_of(tmp_path)
    for run in runs:
        run.create()
    with FileLock(runs[0].record.path / "lock"):
        start(tmp_path, runs)
    assert job_ids(tmp_path, runs) == ["1_0", "1_1"]


def test_the_arrays_of_a_launch_share_its_parallelism(tmp_path: Path, cluster: FakeSlurm) -> None:
    """MaxArraySize=4 allows three tasks; omp-30 waits for dense in another job."""
    rows = ["dense", "svite-30", "svite-40", "s2vite-30", "s2vite-40", "omp-30"]
    runs = runs_of(tmp_path, [f"deit_tiny/{row}" for row in rows], *SLURM, "launcher.parallel=4")
    assert "submitted 6 runs in 3 arrays" in start(tmp_path, runs)
    assert cluster.asked("array") == ["0-2%2", "0-1%1"]
    assert cluster.asked("dependency") == ["afterok:1_0"]
    second = tmp_path / "second"
    start(second, runs_of(second, [f"deit_tiny/{row}" for row in rows], *SLURM, "launcher.parallel=2"))
    assert cluster.asked("array")[2:] == ["0-2%1", "0-1%1"]
    assert cluster.asked("dependency")[1:] == ["afterok:4_0,afterany:5"]


def test_a_run_waits_for_a_job_of_an_earlier_launch(tmp_path: Path, cluster: FakeSlurm) -> None:
    """The job to wait for is known from the queue."""
    start(tmp_path, runs_of(tmp_path, ROWS))  # dense is 1_0
    runs = runs_of(tmp_path, ["deit_tiny/omp-30"])
    assert "submitted 1 run in 1 array" in start(tmp_path, runs)
    assert (cluster.queue, cluster.asked("dependency")) == (["1_0", "1_1", "2"], ["afterok:1_0"])
    assert cluster.asked("kill-on-invalid-dep") == ["yes"]
    # It may never start, which is no start without progress.
    assert [run.record.status().submissions for run in runs] == [1, 0]


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), parallel=st.integers(1, 30))
def test_no_more_tasks_at_once_than_slots(sizes: list[int], parallel: int) -> None:
    shared = share_parallelism(sizes, parallel)
    assert all(1 <= place.parallel <= size for place, size in zip(shared, sizes, strict=True))
    heads = [place for place in shared if place.after is None]
    # No two arrays wait for the same one, and none has more tasks at once than the one that it waits for.
    waited_for = [place.after for place in shared if place.after is not None]
    assert len(set(waited_for)) == len(waited_for)
    assert all(place.parallel <= shared[place.after].parallel for place in shared if place.after is not None)
    assert sum(place.parallel for place in heads) == min(parallel, sum(sizes))


def test_many_small_arrays_take_no_slots_from_a_large_one() -> None:
    """Four pairs that wait for runs of the first array: one slot for all of them, three for the fifty."""
    assert share_parallelism([50, 2, 2, 2, 2], 4) == [Slots(3), Slots(1), Slots(1, 1), Slots(1, 2), Slots(1, 3)]
    assert share_parallelism([50, 2, 2, 2, 2], 16) == [Slots(12), Slots(1), Slots(1), Slots(1), Slots(1)]
    assert share_parallelism([3, 1], 16) == [Slots(3), Slots(1)]


def answering(text: str, monkeypatch: pytest.MonkeyPatch, meanwhile: object = None) -> list[str]:
    """A terminal where the user answers `text`; returns the questions."""
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        if callable(meanwhile):
            meanwhile()
        return text

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    return asked


def test_only_confirmed_runs_are_started(tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the runs is alive when the plan is shown and dies at the question; omp-30 starts from it."""
    runs = runs_of(tmp_path, [*ROWS, "deit_tiny/omp-30"])
    runs[0].create()
    alive = replace(runs[0].record.status(), state="running", job_id="99", heartbeat=1.0)
    runs[0].record.set_status(alive)
    (cluster.folder / "queue").write_text("99|repro-table1-x|RUNNING|node|None\n98|other|RUNNING|node|None\n")
    asked = answering("y", monkeypatch, lambda: (cluster.folder / "queue").write_text(""))
    output = start(tmp_path, runs, yes=False)
    assert len(asked) == 1
    assert "a launch would start 2" in output
    assert "not started, because not in the plan: 2 runs" in output
    assert "submitted 1 run in 1 array" in output
    assert [run.record.status().state for run in runs] == ["running", "submitted", "planned"]


@pytest.mark.parametrize("launcher", ["inline", "local", "slurm"])
def test_a_training_of_published_length_is_confirmed_on_every_launcher(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    for split in ("train", "val"):
        (tmp_path / "images" / split / "n01440764").mkdir(parents=True)
        for number in range(512 if split == "train" else 1):  # a global batch
            (tmp_path / "images" / split / "n01440764" / f"{number}.jpeg").touch()
    data = (f"data.root={tmp_path}/images", "model.num_classes=1")
    runs = runs_of(tmp_path, ROWS, f"launcher={launcher}", *data, scale="paper")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UserError, match=r"2 runs at scale paper.*use --yes"):
        start(tmp_path, runs, yes=False)
    answering("", monkeypatch)
    with pytest.raises(UserError, match="nothing was started"):
        start(tmp_path, runs, yes=False)
    assert not any(run.record.path.exists() for run in runs)
    assert cluster.submissions == 0


@pytest.mark.parametrize("launcher", ["inline", "local", "slurm"])
def test_a_launch_looks_for_the_data_before_it_asks(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    asked = answering("n", monkeypatch)
    runs = runs_of(tmp_path, ROWS, f"launcher={launcher}", "data.root=/nowhere", scale="paper")
    out = io.StringIO()
    with pytest.raises(UserError) as raised:
        launch("table1", runs, LaunchOptions(False, False, 5, tmp_path), Console(file=out, width=200))
    missing = "data.root=/nowhere: no such folder"
    if launcher == "slurm":  # a node may have it
        assert f"not found on this machine, so the compute nodes must have it: {missing}" in out.getvalue()
        assert (str(raised.value), len(asked)) == ("nothing was started", 1)
    else:
        assert str(raised.value).startswith(missing)
        assert not asked
    assert not any(run.record.path.exists() for run in runs)


def test_a_small_run_on_this_machine_needs_no_confirmation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering("n", monkeypatch)
    runs = runs_of(tmp_path, ROWS, "launcher=inline")
    assert confirm("table1", decide(runs, None, False, 5), False, Console(file=io.StringIO())) is None
    assert not asked


def test_a_confirmation_names_no_option_of_another_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch has no `--all`."""
    monkeypatch.setattr("repro.launch.confirm.print_plan", partial(print_plan, max_rows=1))
    runs, out = runs_of(tmp_path, ROWS, "launcher=slurm"), io.StringIO()
    with pytest.raises(UserError):
        confirm("table1", decide(runs, None, False, 5), False, Console(file=out, width=1000))
    assert f"and {count_of(len(runs) - 1, 'more run')}" in out.getvalue().splitlines()

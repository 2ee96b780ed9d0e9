"""Two people and one folder of runs: what one makes the other can go on with; what is the other's own is left alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from filelock import FileLock
from rich.console import Console

from repro.errors import UserError
from repro.launch import control
from repro.launch.control import cancel
from repro.launch.launching import Wishes, launch, owners
from repro.launch.plan import PlannedRun, plan
from repro.launch.slurm import Job
from repro.launch.submit import mend, token_owners
from repro.paper_tables import load_table
from repro.runs.record import Record
from repro.runs.sharing import name_of, share_as

ROOT = Path(__file__).resolve().parents[2]
A, B, LAB = 61001, 61002, 61000  # numbers of users and of their group; nobody needs to know them by name
ROW = "deit_tiny/s2vite-30"
ROWS = ("deit_tiny/dense", "deit_tiny/svite-30")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of runs that A shares with the group. (Others cannot get into the one that pytest makes.)"""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("two users: needs root and setpriv")
    place = Path(tempfile.mkdtemp(prefix="shared-"))
    place.chmod(0o755)
    runs = place / "runs"
    runs.mkdir()
    os.chown(runs, A, LAB)
    runs.chmod(0o2770)
    try:
        yield runs
    finally:
        shutil.rmtree(place)


def as_user(
    user: int, runs: Path, *words: str, code: int | None = 0, largest_file: int = 2**30
) -> subprocess.CompletedProcess[str]:
    """A command of that user's, with umask 022 as most people have it.

    They may read everything, for the interpreter may be in root's home; to write or to signal what is another's takes
    other rights, which they have not.
    """
    home = runs.parent / f"home-{user}"
    if not home.exists():
        home.mkdir()
        os.chown(home, user, LAB)
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    answer = subprocess.run(
        [
            *("setpriv", f"--reuid={user}", f"--regid={LAB}", "--clear-groups", *may_read, "--"),
            *(sys.executable, str(ROOT / "tests" / "small_files.py"), str(largest_file)),
            *(*words, "--scale", "smoke", "--runs", str(runs)),
        ],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "USER": f"u{user}", "LOGNAME": f"u{user}"},
        umask=0o022,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "Traceback" not in answer.stderr, answer.stderr
    assert code is None or answer.returncode == code, answer.stdout + answer.stderr
    return answer


@pytest.mark.slow
def test_one_goes_on_with_what_the_other_has_begun(folder: Path) -> None:
    """A's disk is full and the run fails; B, whose is not, looks at it and starts it again, mirror and all."""
    as_user(A, folder, "launch", "table1", ROW, code=1, largest_file=200_000)
    (record,) = [Record(file.parent) for file in folder.glob("**/config.yaml") if "wandb" not in file.parts]
    assert (record.status().state, record.status().user) == ("failed", A)
    (seen,) = json.loads(as_user(B, folder, "status", "table1", ROW, "--json").stdout)
    assert (seen["state"], "File too large" in seen["reason"]) == ("failed", True)
    as_user(B, folder, "retry", "table1", ROW)
    assert (record.status().state, record.status().user, record.status().attempt) == ("done", B, 2)
    (seen,) = json.loads(as_user(A, folder, "status", "table1", ROW, "--json").stdout)
    assert seen["state"] == "done"
    for path in (folder / ".launch", record.path, record.checkpoint_dir, record.path / "attempts" / "1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o2775, path
        assert path.stat().st_gid == LAB
    for name in ("lock", "status.json", "metrics.jsonl"):
        assert stat.S_IMODE((record.path / name).stat().st_mode) == 0o664, name


def test_a_folder_that_is_not_shared_is_one_line(folder: Path) -> None:
    folder.chmod(0o755)
    as_user(A, folder, "cancel", "table1", ROW)  # makes the folder of launches
    assert stat.S_IMODE((folder / ".launch").stat().st_mode) == 0o755
    answer = as_user(B, folder, "launch", "table1", ROW, code=2)
    assert answer.stderr == (
        f"repro: {folder}: belongs to user {A} and is not shared: chmod -R g+w, and g+s its folders; or set --runs\n"
    )
    folder.chmod(0o2770)  # too late for what is in it
    assert as_user(B, folder, "launch", "table1", ROW, code=2).stderr.startswith(f"repro: {folder}: belongs to ")
    (folder / ".launch").chmod(0o2775)
    (folder / ".launch" / "lock").chmod(0o664)
    (folder / "table1").mkdir()
    os.chown(folder / "table1", A, LAB)
    answer = as_user(B, folder, "launch", "table1", ROW, code=2)
    assert f"{folder}/table1/{ROW}/" in answer.stderr
    assert "cannot make the run's folder (Permission denied)" in answer.stderr


@pytest.mark.parametrize(
    ("mode", "before", "after"), [(0o2770, 0o022, 0o002), (0o770, 0o077, 0o007), (0o755, 0o022, 0o022)]
)
def test_the_folders_mode_decides(tmp_path: Path, mode: int, before: int, after: int) -> None:
    tmp_path.chmod(mode)
    original = os.umask(before)
    try:
        share_as(tmp_path / "nowhere")
        assert os.umask(before) == before
        share_as(tmp_path)
        assert os.umask(before) == after
    finally:
        os.umask(original)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def become(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user)


def runs_of(root: Path, *rows: str) -> list[PlannedRun]:
    table = load_table("table1")
    words = ["launcher=slurm", "launcher.gpus_per_node=0", "tracker=none"]
    return plan(table, table.select(rows or ROWS), "smoke", [0], root, words)


def start(root: Path, runs: list[PlannedRun]) -> str:
    out = io.StringIO()
    launch("table1", runs, Wishes(False, True, 5, root), Console(file=out, width=200))
    return out.getvalue()


def died_before_the_ids_were_noted(root: Path, runs: list[PlannedRun], cluster: FakeSlurm) -> Path:
    """As it is on disk between sbatch and the ids, an hour later."""
    start(root, runs)
    (name,) = {line.split("|")[1] for line in (cluster.folder / "queue").read_text().splitlines()}
    token = root / ".launch" / "tokens" / f"{name.rpartition('-')[2]}.json"
    places = [str(run.record.path.relative_to(root)) for run in runs]
    token.write_text(json.dumps({"runs": places, "time": 0.0, "user": A}))
    for run in runs:
        run.record.set_status(replace(run.record.status(), job_id=None, heartbeat=0.0))
    return token


def test_jobs_of_a_launch_that_died_are_asked_for_by_everybody(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B launches other rows: Slurm shows nobody A's jobs unless it is asked for A's, and A's token would be dropped."""
    become(A, monkeypatch)
    runs = runs_of(tmp_path)
    token = died_before_the_ids_were_noted(tmp_path, runs, cluster)
    (cluster.folder / "squeue").write_text(
        f'#!/bin/sh\ncase "$*" in *--user=*{A}*) cat {cluster.folder}/queue;; esac\n'
    )
    become(B, monkeypatch)
    others = runs_of(tmp_path, "deit_tiny/svite-40")
    assert owners(others) == token_owners(tmp_path) == {A}
    said = start(tmp_path, others)
    assert "2 of its jobs kept, 0 cancelled" in said
    assert "submitted 1 runs in 1 arrays" in said
    assert not token.exists()
    assert [(run.record.status().job_id, run.record.status().user) for run in runs] == [("1_0", A), ("1_1", A)]
    assert owners(runs) == {A}
    assert owners([*runs, *others]) == {A, B}


def test_records_of_before_are_whose_file_it_is(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    runs[0].create()
    assert owners(runs) == {(runs[0].record.path / "status.json").stat().st_uid}


def test_nobody_cancels_the_jobs_of_somebody_elses_launch(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(A, monkeypatch)
    runs = runs_of(tmp_path)
    token = died_before_the_ids_were_noted(tmp_path, runs, cluster)
    (tmp_path / ".launch" / "jobs" / "1_1_submitted.pkl").unlink()  # that one can never run
    become(B, monkeypatch)
    with pytest.raises(UserError, match=rf"user {A} has to launch once, or an admin .*\(scancel 1_1\)"):
        start(tmp_path, runs_of(tmp_path, "deit_tiny/svite-40"))
    assert (token.exists(), cluster.queue) == (True, ["1_0", "1_1"])
    assert [run.record.status().job_id for run in runs] == [None, None]
    become(A, monkeypatch)
    jobs = {id_: Job(id_, f"repro-table1-{token.stem}", "PENDING", "", "") for id_ in cluster.queue}
    assert mend(tmp_path, jobs) == ["a launch died while it submitted: 1 of its jobs kept, 1 cancelled"]
    assert (token.exists(), cluster.queue) == (False, ["1_0"])


def test_cancel_leaves_what_is_somebody_elses(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runs_of(tmp_path, *ROWS, "deit_tiny/svite-40")
    become(A, monkeypatch)
    start(tmp_path, runs[:1])
    become(B, monkeypatch)
    start(tmp_path, runs[1:2])
    runs[2].create()
    ours = runs[2].record.status().moved("running", host=os.uname().nodename, pid=os.getpid(), user=A)
    runs[2].record.set_status(ours)
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(control.os, "kill", lambda pid, number: killed.append((pid, number)) if number else None)
    jobs = {id_: Job(id_, "repro-table1-x", "PENDING", "", "") for id_ in cluster.queue}
    monkeypatch.setattr(control, "why_alive", lambda *_: "it is")
    cancelled = cancel(runs, jobs, tmp_path)
    assert cancelled.told == ["deit_tiny/svite-30: cancelling job 2"]
    assert cancelled.left == [
        f"deit_tiny/dense: job 1 belongs to user {A}, who alone can stop it",
        f"deit_tiny/svite-40: process {os.getpid()} belongs to user {A}, who alone can stop it",
    ]
    assert (cluster.queue, killed) == (["1"], [])
    assert [run.record.status().state for run in runs] == ["submitted", "cancelled", "running"]
    become(A, monkeypatch)
    monkeypatch.setattr(control, "SAVE_WAIT_S", 0.0)  # it does not listen: it is this process
    with FileLock(runs[2].record.path / "lock"):
        assert f"asking process {os.getpid()}" in cancel(runs[2:], jobs, tmp_path).told[0]
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_users_have_names() -> None:
    assert (name_of(0), name_of(4_000_000_000), name_of(None)) == ("root", "user 4000000000", "somebody")

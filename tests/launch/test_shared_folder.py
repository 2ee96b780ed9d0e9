"""Two users share a runs folder: each can continue what the other has started, but not stop it."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from filelock import FileLock
from rich.console import Console

from repro.errors import UserError
from repro.launch.cancel import cancel
from repro.launch.launch import LaunchOptions, launch
from repro.launch.plan import PlannedRun, plan
from repro.launch.queue import job_owners, read_queue
from repro.launch.status import run_statuses
from repro.runs.permissions import adopt_group_umask, user_name
from repro.runs.record import Record
from repro.tables.loader import load_table

ROOT = Path(__file__).resolve().parents[2]
A, B, LAB = 61001, 61002, 61000  # ids of users and of their group, which need no names
ROW = "deit_tiny/s2vite-30"
ROWS = ("deit_tiny/dense", "deit_tiny/svite-30")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A runs folder that A shares with the group. (Other users cannot enter pytest's own.)"""
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
def test_another_user_can_retry_a_run(folder: Path) -> None:
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
    too_many = ["launcher=local", "launcher.gpus_per_node=999"]
    as_user(A, folder, "launch", "table1", ROW, *too_many, code=2)  # creates .launch
    assert stat.S_IMODE((folder / ".launch").stat().st_mode) == 0o755
    answer = as_user(B, folder, "launch", "table1", ROW, code=2)
    assert answer.stderr == (
        f"repro: {folder}: belongs to user {A} and is not shared; run chmod -R g+w on it and chmod g+s on its folders, "
        "or set --runs, or run.root= of repro train\n"
    )
    folder.chmod(0o2770)  # too late for what is in it
    assert as_user(B, folder, "launch", "table1", ROW, code=2).stderr.startswith(f"repro: {folder}: belongs to ")
    (folder / ".launch").chmod(0o2775)
    (folder / ".launch" / "lock").chmod(0o664)
    (folder / "table1").mkdir()
    os.chown(folder / "table1", A, LAB)
    answer = as_user(B, folder, "launch", "table1", ROW, code=2)
    assert f"{folder}/table1/{ROW}/" in answer.stderr
    assert "cannot create the run's folder (Permission denied)" in answer.stderr


@pytest.mark.parametrize(
    ("mode", "before", "after"), [(0o2770, 0o022, 0o002), (0o770, 0o077, 0o007), (0o755, 0o022, 0o022)]
)
def test_the_folders_mode_decides(tmp_path: Path, mode: int, before: int, after: int) -> None:
    tmp_path.chmod(mode)
    original = os.umask(before)
    try:
        adopt_group_umask(tmp_path / "nowhere")
        assert os.umask(before) == before
        adopt_group_umask(tmp_path)
        assert os.umask(before) == after
    finally:
        os.umask(original)


def become(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user)


def runs_of(root: Path, *rows: str) -> list[PlannedRun]:
    table = load_table("table1")
    words = ["launcher=slurm", "launcher.gpus_per_node=0", "tracker=none"]
    return plan(table, table.select(rows or ROWS), "smoke", [0], root, words)


def start(root: Path, runs: list[PlannedRun]) -> str:
    out = io.StringIO()
    launch("table1", runs, LaunchOptions(False, True, 5, root), Console(file=out, width=200))
    return out.getvalue()


def test_everybody_knows_the_jobs_of_a_launch_that_died(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue shows B the jobs of A only if it is asked for them. A's launch got no answer from sbatch."""
    become(A, monkeypatch)
    runs = runs_of(tmp_path)
    cluster.will("taken", "error sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    with pytest.raises(UserError, match="Slurm may have accepted"):
        start(tmp_path, runs)
    (cluster.folder / "squeue").write_text(
        f'#!/bin/sh\ncase "$*" in *--user=*{A}*) cat {cluster.folder}/queue;; esac\n'
    )
    become(B, monkeypatch)
    assert job_owners(runs) == {A}
    assert "Slurm job 1_0 is pending" in start(tmp_path, runs)
    statuses = run_statuses(runs, read_queue(tmp_path, job_owners(runs)))
    assert [(status.state, status.job_id) for status in statuses] == [("submitted", "1_0"), ("submitted", "1_1")]
    cluster.will("taken")
    others = runs_of(tmp_path, "deit_tiny/svite-40")
    assert "submitted 1 run in 1 array" in start(tmp_path, others)
    assert job_owners([*runs, *others]) == {A, B}


def test_records_of_earlier_versions_belong_to_the_owner_of_their_status(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    runs[0].create()
    assert job_owners(runs) == {(runs[0].record.path / "status.json").stat().st_uid}


def test_cancel_leaves_jobs_and_processes_of_others(
    tmp_path: Path, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runs_of(tmp_path, *ROWS, "deit_tiny/svite-40")
    become(A, monkeypatch)
    start(tmp_path, runs[:1])
    become(B, monkeypatch)
    start(tmp_path, runs[1:2])
    runs[2].create()
    with subprocess.Popen(["sleep", "60"]) as process, FileLock(runs[2].record.path / "lock"):
        at_work = runs[2].record.status().moved("running", host=platform.node(), pid=process.pid, user=A)
        runs[2].record.set_status(at_work)
        cancelled = cancel(runs, read_queue(tmp_path, [A]), tmp_path)
        assert cancelled.stopping == ["deit_tiny/svite-30: cancelling job 2"]
        assert cancelled.not_cancelled == [
            f"deit_tiny/dense: job 1 belongs to user {A}, and only they can stop it",
            f"deit_tiny/svite-40: process {process.pid} belongs to user {A}, and only they can stop it",
        ]
        assert (cluster.queue, process.poll()) == (["1"], None)
        assert [run.record.status().state for run in runs] == ["submitted", "cancelled", "running"]
        become(A, monkeypatch)
        cancelled = cancel(runs[2:], read_queue(tmp_path, []), tmp_path, save_wait_s=0)
        assert cancelled.stopping == [f"deit_tiny/svite-40: process {process.pid} saves and stops"]
        assert process.wait(30) == -signal.SIGTERM


def test_users_have_names() -> None:
    assert (user_name(0), user_name(4_000_000_000), user_name(None)) == ("root", "user 4000000000", "an unknown user")

"""GPUs of this machine are dealt out once, as far as there are any."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from repro.composition import compose
from repro.config import LocalLauncher
from repro.errors import UserError
from repro.launch.gpus import shares, shares_here, visible
from repro.launch.launching import Wishes, launch
from repro.launch.plan import plan
from repro.paper_tables import load_table


def launcher(parallel: int | str, gpus: int) -> LocalLauncher:
    words = [f"launcher.parallel={parallel}", f"launcher.gpus_per_node={gpus}", f"launcher.tasks_per_node={gpus or 1}"]
    found = compose(["launcher=local", *words]).launcher
    assert isinstance(found, LocalLauncher)
    return found


@pytest.mark.parametrize(
    ("inherited", "installed", "expected"),
    [(None, 4, [0, 1, 2, 3]), ("2,3", 0, [2, 3]), ("", 8, []), ("-1", 8, []), (" 5", 8, [5])],
)
def test_what_was_inherited_is_dealt_out_and_nothing_else(
    inherited: str | None, installed: int, expected: list[int]
) -> None:
    assert visible(inherited, installed) == expected


def test_names_of_gpus_are_one_line() -> None:
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=GPU-8932f937: launcher=local takes numbers"):
        visible("GPU-8932f937", 1)


def test_each_run_has_gpus_of_its_own() -> None:
    assert shares(launcher(2, 2), 2, [2, 3, 5, 7]) == [(2, 3), (5, 7)]
    assert shares(launcher("auto", 2), 16, [0, 1, 2, 3, 4]) == [(0, 1), (2, 3)]  # as many as have what they need
    assert shares(launcher(3, 0), 3, []) == [(), (), ()]


@given(parallel=st.integers(1, 9), gpus=st.integers(1, 9), there=st.lists(st.integers(0, 99), unique=True, max_size=12))
def test_no_gpu_twice_and_none_that_is_not_there(parallel: int, gpus: int, there: list[int]) -> None:
    try:
        found = shares(launcher(parallel, gpus), parallel, there)
    except UserError:
        assert parallel * gpus > len(there)
        return
    dealt = [number for share in found for number in share]
    assert len(found) == parallel
    assert dealt == there[: parallel * gpus]


@pytest.mark.parametrize(
    ("parallel", "devices", "message"),
    [
        ("2", "0,1,2", "launcher.parallel=2: runs of launcher.gpus_per_node=2 need 4 GPUs, and there are 3"),
        ("auto", "7", r"launcher.gpus_per_node=2: not so many GPUs here \(those of CUDA_VISIBLE_DEVICES are 7\)"),
        ("1", "", r"launcher.gpus_per_node=2: not so many GPUs here \(there are none\)"),
    ],
)
def test_a_launch_that_has_not_the_gpus_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: str, devices: str, message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    table = load_table("table1")
    words = ["launcher=local", f"launcher.parallel={parallel}", "launcher.gpus_per_node=2", "launcher.tasks_per_node=2"]
    runs = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path, words)
    with pytest.raises(UserError, match=message):
        launch("table1", runs, Wishes(False, True, 5, tmp_path), Console(file=io.StringIO()))
    assert not runs[0].record.path.exists()


def test_without_a_list_nvidia_smi_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: one (UUID: GPU-1)'\necho 'GPU 1: two (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert shares_here(launcher(2, 1), 2) == [(0,), (1,)]


def test_jobs_at_work_at_once_see_different_gpus(tmp_path: Path) -> None:
    rows = ["deit_tiny/dense", "deit_tiny/svite-30"]
    setup = "launcher.setup=['echo saw $CUDA_VISIBLE_DEVICES', 'sleep 1', 'exit 3']"
    words = ["--scale", "smoke", "tracker=none", "launcher=local", "launcher.parallel=2", "launcher.gpus_per_node=1"]
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-m", "repro", "launch", "table1", *rows, *words, setup],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "5,3"},
        capture_output=True,
        timeout=180,
        check=False,
    )
    logs = (tmp_path / "runs" / ".launch" / "jobs").glob("*_log.out")
    assert sorted(file.read_text() for file in logs) == ["saw 3\n", "saw 5\n"]

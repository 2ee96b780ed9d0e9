"""GPUs of this machine: no two runs share one, and no run gets one that is not there."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from repro.config import LocalLauncher
from repro.config.compose import compose
from repro.errors import UserError
from repro.launch.gpus import gpus_per_run, visible_gpus
from repro.launch.launch import LaunchOptions, launch
from repro.launch.plan import plan
from repro.tables.loader import load_table


def launcher(parallel: int | str, gpus: int) -> LocalLauncher:
    words = [f"launcher.parallel={parallel}", f"launcher.gpus_per_node={gpus}", f"launcher.tasks_per_node={gpus or 1}"]
    found = compose(["launcher=local", *words]).launcher
    assert isinstance(found, LocalLauncher)
    return found


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        ("2,3", ["2", "3"]),
        ("", []),
        ("-1", []),
        (" 5", ["5"]),
        ("0,-1,2", ["0"]),  # CUDA ignores what follows an invalid entry
        ("GPU-8932f937,MIG-1b2c", ["GPU-8932f937", "MIG-1b2c"]),
    ],
)
def test_only_inherited_gpus_are_used(monkeypatch: pytest.MonkeyPatch, inherited: str, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    assert visible_gpus() == expected


def test_nvidia_smi_lists_the_gpus_if_none_are_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: one (UUID: GPU-1)'\necho 'GPU 1: two (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_per_run(launcher(2, 1), 2) == ["0", "1"]


def test_each_run_has_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7,9")
    assert gpus_per_run(launcher(2, 2), 2) == ["2,3", "5,7"]
    assert gpus_per_run(launcher("auto", 2), 16) == ["2,3", "5,7"]  # as many runs as there are GPUs for
    assert gpus_per_run(launcher(3, 0), 3) == ["", "", ""]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parallel=st.integers(1, 9), gpus=st.integers(1, 9), there=st.lists(st.integers(0, 99), unique=True, max_size=12))
def test_no_gpu_is_used_twice(monkeypatch: pytest.MonkeyPatch, parallel: int, gpus: int, there: list[int]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, there)))
    try:
        found = gpus_per_run(launcher(parallel, gpus), parallel)
    except UserError:
        assert parallel * gpus > len(there)
        return
    assert len(found) == parallel
    assert [int(number) for share in found for number in share.split(",")] == there[: parallel * gpus]


@pytest.mark.parametrize(
    ("parallel", "devices", "message"),
    [
        (
            "2",
            "0,1,2",
            "launcher.parallel=2: with launcher.gpus_per_node=2 these runs need 4 GPUs, but this machine has 3",
        ),
        ("auto", "7", r"launcher.gpus_per_node=2: this machine has fewer GPUs \(CUDA_VISIBLE_DEVICES=7\)"),
        ("1", "", r"launcher.gpus_per_node=2: this machine has fewer GPUs \(none\)"),
    ],
)
def test_a_launch_with_too_few_gpus_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: str, devices: str, message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    table = load_table("table1")
    words = ["launcher=local", f"launcher.parallel={parallel}", "launcher.gpus_per_node=2", "launcher.tasks_per_node=2"]
    runs = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path, words)
    with pytest.raises(UserError, match=message):
        launch("table1", runs, LaunchOptions(False, True, 5, tmp_path), Console(file=io.StringIO()))
    assert not runs[0].record.path.exists()


def test_runs_at_the_same_time_see_different_gpus(tmp_path: Path) -> None:
    rows = ["deit_tiny/dense", "deit_tiny/svite-30"]
    words = ["--scale", "smoke", "tracker=none", "launcher=local", "launcher.parallel=2", "launcher.gpus_per_node=1"]
    subprocess.run(
        [sys.executable, "-m", "repro", "launch", "table1", *rows, *words, "run.device=cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "CUDA_VISIBLE_DEVICES": "5,3"},
        capture_output=True,
        timeout=180,
        check=True,
    )
    logs = tmp_path.glob("runs/table1/**/attempts/1/stdout")
    assert sorted(file.read_text().splitlines()[0] for file in logs) == [
        "CUDA_VISIBLE_DEVICES=3",
        "CUDA_VISIBLE_DEVICES=5",
    ]

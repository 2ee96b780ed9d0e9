"""status, logs, cancel, retry and doctor, on real records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.launch.failures import causes
from repro.launch.overview import Line

ROOT = Path(__file__).resolve().parents[2]
REPRO = [sys.executable, "-m", "repro"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SMOKE = ["--scale", "smoke", "tracker=none"]


def repro(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REPRO, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )


def states(folder: Path, *words: str) -> dict[str, dict[str, object]]:
    entries = json.loads(repro(folder, "status", "table1", *words, *SMOKE, "--json").stdout)
    return {entry["row"]: entry for entry in entries}


def test_cancel_saves_and_launch_goes_on(tmp_path: Path) -> None:
    rows = ["deit_tiny/dense", "deit_tiny/svite-30"]
    words = [*rows, *SMOKE, "recipe.epochs=300", "launcher=local", "launcher.parallel=1"]
    first = subprocess.Popen(
        [*REPRO, "launch", "table1", *words], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 120
        while states(tmp_path, *rows, "recipe.epochs=300")[rows[0]]["update"] == 0:
            assert time.monotonic() < until
        seen = states(tmp_path, *rows, "recipe.epochs=300")
        assert [seen[row]["state"] for row in rows] == ["running", "submitted"]
        # A second launch finds one at work and one in the line of the first, and starts neither.
        said = repro(tmp_path, "launch", "table1", *words)
        assert "a process holds its lock" in said.stdout
        assert "another launch has it in its line" in said.stdout
        first.send_signal(signal.SIGINT)
        time.sleep(0.5)
        answer = repro(tmp_path, "cancel", "table1", *rows, *SMOKE, "recipe.epochs=300")
        assert "asking process" in answer.stdout
        first.wait(60)
    finally:
        first.kill()
        first.wait()
    seen = states(tmp_path, *rows, "recipe.epochs=300")
    assert seen[rows[0]]["state"] in ("cancelled", "requeued")
    assert seen[rows[1]]["state"] == "planned"  # taken out of the line


def test_failures_logs_and_retry(tmp_path: Path) -> None:
    bad = ["deit_tiny/dense", *SMOKE, "recipe.warmup_epochs=0", "recipe.lr=1e30"]
    assert repro(tmp_path, "launch", "table1", *bad).returncode == 1
    said = repro(tmp_path, "status", "table1", *bad).stdout
    assert "1 failed alike: the loss is not finite" in said
    assert "repro logs table1 deit_tiny/dense --scale smoke" in said
    logs = repro(tmp_path, "logs", "table1", *bad).stdout
    assert "failed: the loss is not finite" in logs
    assert repro(tmp_path, "retry", "table1", *bad).returncode == 1
    assert states(tmp_path, *bad[:1], *bad[3:])["deit_tiny/dense"]["attempts"] == 2


def test_nothing_to_retry_and_no_logs_yet(tmp_path: Path) -> None:
    assert "nothing has failed" in repro(tmp_path, "retry", "table1", "deit_tiny/dense", *SMOKE).stdout
    answer = repro(tmp_path, "logs", "table1", "deit_tiny/dense", *SMOKE)
    assert (answer.returncode, "nothing was written yet" in answer.stderr) == (2, True)


def test_causes_group_what_differs_in_numbers_only(tmp_path: Path) -> None:
    def failed(row: str, reason: str) -> Line:
        return Line(row, 0, "failed", 0, 0, None, None, None, None, None, None, 1, reason, str(tmp_path))

    entries = [failed("a", "no file /x/1"), failed("b", "no file /y/2"), failed("c", "the loss is nan")]
    found = causes("table1", "paper", entries)
    assert [(cause.line, cause.rows) for cause in found] == [
        ("no file /x/1", ("a", "b")),
        ("the loss is nan", ("c",)),
    ]


def test_doctor_says_what_to_do(tmp_path: Path) -> None:
    answer = repro(tmp_path, "doctor", "--json", "--scale", "paper", f"data.root={tmp_path}/nowhere")
    checks = {check["name"]: check for check in json.loads(answer.stdout)}
    assert answer.returncode == 1
    assert checks["data"]["verdict"] == "fail"
    assert "data.root= the folder that holds train/ and val/" in checks["data"]["advice"]
    for name in ("python", "torch", "gpu", "runs folder", "file locks", "disk", "W&B login", "slurm"):
        assert checks[name]["verdict"] in ("pass", "warn", "fail")


@pytest.mark.parametrize("word", ["seeds=x", "seeds=0"])
def test_seeds_are_a_number(tmp_path: Path, word: str) -> None:
    answer = repro(tmp_path, "plan", "table1", word)
    assert answer.returncode == 2
    assert "seeds" in answer.stderr


def test_seeds_three_are_three_runs(tmp_path: Path) -> None:
    plan = json.loads(repro(tmp_path, "plan", "table1", "deit_tiny/dense", "seeds=3", "--json").stdout)
    assert [entry["seed"] for entry in plan] == [0, 1, 2]

"""Ctrl-C in the first seconds: while python starts, torch is imported, a run's process does not exist yet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from repro.interruption import signals_blocked

ROOT = Path(__file__).resolve().parents[2]
ROW = "deit_tiny/dense"
# Longer than the test waits.
LONG = [ROW, "--scale", "smoke", "tracker=none", "recipe.epochs=5000"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
LISTENER = """
import sys
from repro.interruption import StopFlag
print("up", flush=True)
sys.stdin.readline()
with StopFlag() as stop:
    print(stop.reason, flush=True)
    sys.stdin.readline()
    print(stop.reason, flush=True)
"""


def listener(*before: str) -> subprocess.Popen[str]:
    """A process that listens for signals after a line of input, and prints what it got; again after the next line."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", LISTENER],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def hears(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_signals_that_came_earlier_arrive_and_the_first_is_the_reason() -> None:
    with signals_blocked():
        process = listener()
    with process:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            process.send_signal(number)
        assert hears(process) == "SIGINT"
        process.send_signal(signal.SIGTERM)
        assert hears(process) == "SIGINT"
    assert process.returncode == 0


def test_signals_ignored_by_nohup_stay_ignored() -> None:
    with listener("nohup") as process:
        assert hears(process) == "None"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert hears(process) == "SIGTERM"


def record(folder: Path) -> Path | None:
    return next(folder.glob("runs/table1/**/seed0-*"), None)


def status(folder: Path) -> dict[str, object]:
    place = record(folder)
    file = place / "status.json" if place is not None else None
    return dict(json.loads(file.read_text())) if file is not None and file.exists() else {}


def is_enqueued(folder: Path) -> bool:
    return status(folder).get("state") == "submitted"


def has_begun(folder: Path) -> bool:
    place = record(folder)
    return place is not None and (place / "attempts" / "1").is_dir()


def is_at_work(folder: Path) -> bool:
    return status(folder).get("state") == "running" and bool(status(folder)["update"])


def launched(folder: Path, launcher: str, until: Callable[[Path], bool], presses: int = 1) -> tuple[int, str]:
    """A launch that gets Ctrl-C once `until` holds; returns its exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "repro", "launch", "table1", *LONG, f"launcher={launcher}"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        latest = time.monotonic() + 120
        while not until(folder):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < latest
            time.sleep(0.005)
        for _ in range(presses):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that it has started
            time.sleep(0.2 * (presses - 1))  # as two presses of one person
        _, errors = process.communicate(timeout=90)
        return process.returncode, errors
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize(
    ("launcher", "moment"),
    [("local", is_enqueued), ("local", has_begun), ("inline", is_enqueued), ("inline", has_begun)],
)
def test_a_run_that_gets_ctrl_c_in_its_first_seconds_can_be_launched_again(
    tmp_path: Path, launcher: str, moment: Callable[[Path], bool]
) -> None:
    code, errors = launched(tmp_path, launcher, moment)
    assert code == 130
    # Empty if it came before the first run was started.
    assert errors in ("stopped; run the same command to resume\n", "")
    seen = status(tmp_path)
    if moment is has_begun and seen["state"] == "requeued":  # it was listening by then
        assert str(seen["reason"]).startswith("stopped by SIGINT; resumes from update ")
    else:
        assert (seen["state"], seen["submissions"], seen["pid"]) == ("planned", 0, None)


def test_a_run_that_was_killed_by_two_presses_can_be_launched_again(tmp_path: Path) -> None:
    """After an attempt that was stopped before it had started."""
    launched(tmp_path, "local", has_begun)
    code, _ = launched(tmp_path, "local", is_at_work, presses=2)
    assert code == 130
    seen = status(tmp_path)
    assert (seen["state"], seen["attempt"]) == ("requeued", 2)
    place = record(tmp_path)
    assert place is not None
    assert not list(place.glob(".*.tmp"))


def test_ctrl_c_in_a_sweep_starts_no_other_run(tmp_path: Path) -> None:
    words = ["backbone=deit_tiny", "scale=smoke", "tracker=none", "recipe.epochs=5000", "seed=0,1,2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "repro", "train", "-m", *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        latest = time.monotonic() + 120
        while not list(tmp_path.glob("runs/by_hand/**/attempts/1")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < latest
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130
    assert len(list(tmp_path.glob("runs/by_hand/**/attempts/1"))) == 1

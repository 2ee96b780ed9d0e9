"""Ctrl-C before anybody listens to it: while python starts, torch is imported, a run's process is not there yet."""

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

from repro.launch import by_hand
from repro.training.interruption import held_back

ROOT = Path(__file__).resolve().parents[2]
ROW = "deit_tiny/dense"
# A run that nobody stops is still at work when the test gives up.
LONG = [ROW, "--scale", "smoke", "tracker=none", "recipe.epochs=5000"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
LISTENER = """
import sys
from repro.training.interruption import StopFlag
print("up", flush=True)
sys.stdin.readline()
with StopFlag() as stop:
    print(stop.reason, flush=True)
    sys.stdin.readline()
    print(stop.reason, flush=True)
"""


def listener(*before: str) -> subprocess.Popen[str]:
    """A process that begins to listen when it is told a line, and says what it has heard; again at the next line."""
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


def test_what_came_before_it_listened_is_heard_and_the_first_is_the_reason() -> None:
    with held_back():
        process = listener()
    with process:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            process.send_signal(number)
        assert hears(process) == "SIGINT"
        process.send_signal(signal.SIGTERM)
        assert hears(process) == "SIGINT"
    assert process.returncode == 0


def test_what_is_ignored_on_request_stays_so() -> None:
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


def is_in_line(folder: Path) -> bool:
    return status(folder).get("state") == "submitted"


def has_begun(folder: Path) -> bool:
    place = record(folder)
    return place is not None and (place / "attempts" / "1").is_dir()


def has_logs(folder: Path) -> bool:
    """submitit's controller has started the task."""
    return next(folder.glob("runs/.launch/jobs/*_log.out"), None) is not None


def is_at_work(folder: Path) -> bool:
    return status(folder).get("state") == "running" and bool(status(folder)["update"])


def launched(folder: Path, launcher: str, until: Callable[[Path], bool], presses: int = 1) -> tuple[int, str]:
    """A launch in which somebody presses Ctrl-C at a moment; its exit code, and what it says on stderr."""
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
            time.sleep(0.2 * (presses - 1))  # one person's two presses are two signals
        _, errors = process.communicate(timeout=90)
        return process.returncode, errors
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize(
    ("launcher", "moment"),
    [("local", is_in_line), ("local", has_logs), ("local", has_begun), ("inline", is_in_line), ("inline", has_begun)],
)
def test_ctrl_c_in_the_first_seconds_leaves_a_run_that_launch_goes_on_with(
    tmp_path: Path, launcher: str, moment: Callable[[Path], bool]
) -> None:
    code, errors = launched(tmp_path, launcher, moment)
    assert code == 130
    # Nothing to say where not even the first run was about to be started.
    assert errors in ("stopped; the same command goes on where it was\n", "")
    seen = status(tmp_path)
    if moment is has_begun and seen["state"] == "requeued":  # by now it listened, and was told as any run is
        assert str(seen["reason"]).startswith("stopped by SIGINT; goes on from update ")
    else:
        assert (seen["state"], seen["submissions"], seen["pid"]) == ("planned", 0, None)


def test_two_presses_end_a_run_that_the_next_launch_goes_on_with(tmp_path: Path) -> None:
    """After one that came too early to matter."""
    launched(tmp_path, "local", has_begun)
    code, _ = launched(tmp_path, "local", is_at_work, presses=2)
    assert code == 130
    seen = status(tmp_path)
    assert (seen["state"], seen["attempt"]) == ("requeued", 2)
    place = record(tmp_path)
    assert place is not None
    assert not list(place.glob(".*.tmp"))


def test_ctrl_c_in_a_sweep_starts_no_other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def stopped(overrides: list[str], _: object) -> int:
        tried.append(overrides)
        return 130

    monkeypatch.setattr(by_hand, "train", stopped)
    monkeypatch.setattr(sys, "argv", ["repro"])
    with pytest.raises(KeyboardInterrupt):
        by_hand.train_many(["scale=smoke", "seed=0,1,2"])
    assert len(tried) == 1

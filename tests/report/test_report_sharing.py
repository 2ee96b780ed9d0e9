"""Work of several processes is what one would do, in its order, and an error is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repro.report.sharing import share

# Without the threads that a test runner may have: those keep it to one process.
SHARED = """
import multiprocessing, os, sys
from pathlib import Path
from repro.report.sharing import share
folder = Path(sys.argv[1])
os.sched_getaffinity = lambda _: {0, 1, 2}
all_three = multiprocessing.get_context("fork").Barrier(3, timeout=50)

def job(place):
    def write():
        if place < 2:
            all_three.wait()
        path = folder / str(place)
        path.write_text(str(os.getpid()))
        if place == int(sys.argv[2]):
            raise ValueError(f"job {place}")
        return path
    return write

def meanwhile():
    all_three.wait()
    (folder / "own").write_text(str(os.getpid()))

found = share([job(place) for place in range(7)], meanwhile)
assert [path.name for path in found] == list("0123456"), found
"""


def shared(folder: Path, failing: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", SHARED, str(folder), str(failing)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_jobs_are_done_at_once_and_what_they_return_comes_in_order(tmp_path: Path) -> None:
    """The first two jobs and what only this process can do wait for each other: three processes are at work."""
    done = shared(tmp_path, -1)
    assert done.returncode == 0, done.stderr
    assert len({(tmp_path / name).read_text() for name in ("own", "0", "1")}) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [*"0123456", "own"]


def test_one_processor_does_all_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.report.sharing.processors", lambda: 1)
    done: list[str] = []
    assert share([lambda: done.append("job")], lambda: done.append("own")) == [None]
    assert done == ["own", "job"]


@pytest.mark.parametrize("failing", [0, 4])
def test_an_error_of_any_process_is_raised(failing: int, tmp_path: Path) -> None:
    done = shared(tmp_path, failing)
    assert done.returncode == 1
    assert f"ValueError: job {failing}" in done.stderr


def test_no_job_is_no_result() -> None:
    assert share([]) == []

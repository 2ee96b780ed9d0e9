"""Work of several processes is what one would do, in its order, and an error is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repro.report.sharing import share

# Without the threads that a test runner may have: those keep it to one process.
SHARED = """
import os, sys
from pathlib import Path
from repro.report.sharing import share
folder = Path(sys.argv[1])
os.sched_getaffinity = lambda _: {0, 1, 2}

def job(place):
    def write():
        path = folder / str(place)
        path.write_text(str(os.getpid()))
        if place == int(sys.argv[2]):
            raise ValueError(f"job {place}")
        return path
    return write

found = share([job(place) for place in range(7)])
assert [path.name for path in found] == list("0123456"), found
"""


def shared(folder: Path, failing: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", SHARED, str(folder), str(failing)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_jobs_are_shared_and_their_files_come_in_order(tmp_path: Path) -> None:
    done = shared(tmp_path, -1)
    assert done.returncode == 0, done.stderr
    writers = [(tmp_path / str(place)).read_text() for place in range(7)]
    assert len(set(writers)) == 3
    assert writers[0] == writers[3] == writers[6]


@pytest.mark.parametrize("failing", [0, 4])
def test_an_error_of_any_process_is_raised(failing: int, tmp_path: Path) -> None:
    done = shared(tmp_path, failing)
    assert done.returncode == 1
    assert f"ValueError: job {failing}" in done.stderr


def test_no_job_is_no_result() -> None:
    assert share([]) == []

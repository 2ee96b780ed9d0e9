"""The history of a run: how long each attempt ran."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repro.launch.history import history
from repro.runs.record import Record
from repro.runs.status import State, Status


@pytest.mark.parametrize(
    ("state", "attempts"),
    [
        ("done", ["2 s", "12 s"]),  # the second attempt printed nothing after its first second
        ("running", ["2 s", "12 s"]),
        ("submitted", ["2 s", "1 s"]),  # the heartbeat is that of the submission
    ],
)
def test_an_attempt_ran_until_its_last_report(tmp_path: Path, state: State, attempts: list[str]) -> None:
    record, start = Record(tmp_path), 1_700_000_000
    for number, seconds in ((1, 2), (2, 1)):
        folder = record.attempt_dir(number)
        folder.mkdir(parents=True)
        (folder / "stdout").write_text("text")
        os.utime(folder / "stdout", (start, start + seconds))
        os.utime(folder, (start, start))
    record.set_status(Status(state, heartbeat=start + 12, attempt=2))
    assert [line.rpartition(", ")[2] for line in history(record, state) if "attempt " in line] == attempts

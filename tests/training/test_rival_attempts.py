"""Two attempts at one run, what dead ones left behind, and clocks and files that fail meanwhile."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from smoke_records import in_child, new_record

from repro.runs.record import Record
from repro.runs.status import EXIT_STOPPED, Status
from repro.training.attempt import EXIT_DONE, execute

GETS_GOING_WITHIN_S = 90


def wait_for(record: Record, updates: int) -> None:
    until = time.monotonic() + GETS_GOING_WITHIN_S
    while record.status().update < updates:
        assert time.monotonic() < until, record.status()
        time.sleep(0.02)


def test_a_stale_lock_and_half_written_files_are_in_nobodys_way(tmp_path: Path) -> None:
    record = new_record(tmp_path)
    (record.path / "lock").touch()
    record.checkpoint_dir.mkdir()
    leftovers = [record.path / ".status.json.99.tmp", record.checkpoint_dir / ".update-000000004.pt.99.tmp"]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    assert execute(record.path, log=lambda _: None) == EXIT_DONE
    assert not any(leftover.exists() for leftover in leftovers)


def test_the_older_of_two_attempts_stops(tmp_path: Path) -> None:
    record = new_record(tmp_path, "recipe.epochs=100")
    older = in_child(record)
    wait_for(record, 5)
    newer = in_child(record)
    older.join(60)
    assert older.exitcode == EXIT_STOPPED
    newer.join(120)
    assert newer.exitcode == EXIT_DONE
    assert (record.status().state, record.status().attempt) == ("done", 2)
    assert "resumed from update" in (record.attempt_dir(2) / "stdout").read_text()


def test_an_older_attempt_that_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    record = new_record(tmp_path)
    from filelock import FileLock

    said: list[str] = []
    with FileLock(record.path / "lock"):
        assert execute(record.path, log=said.append, takeover_timeout_s=0.5) == EXIT_STOPPED
    assert "stopped by an older attempt, which still holds the lock of this run" in said[0]


def test_a_clock_that_goes_backwards_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() - offset)

    def back() -> None:
        nonlocal offset
        while not done.wait(0.05):
            offset += 600

    done = threading.Event()
    thread = threading.Thread(target=back)
    thread.start()
    try:
        record = new_record(tmp_path)
        assert execute(record.path, log=lambda _: None) == EXIT_DONE
    finally:
        done.set()
        thread.join()
    result = record.result() or {}
    assert result["wall_s"] > 0
    assert json.loads((record.path / "status.json").read_text())["state"] == "done"


def test_a_status_that_cannot_be_written_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record = new_record(tmp_path)

    def disk_is_full(self: Record, status: Status) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(Record, "set_status", disk_is_full)
        assert execute(record.path, log=lambda _: None) == EXIT_DONE
    assert capfd.readouterr().err.count("No space left on device") == 1, "at the start; the end fails silently"
    assert record.result() is not None
    assert record.status().state == "planned"
    assert execute(record.path, log=lambda _: None) == EXIT_DONE
    assert record.status().state == "done"

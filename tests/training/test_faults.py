"""Checkpoints and attempts when things go wrong: kills, torn files, full and read-only disks, two attempts at once."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_runs import SHORT, VIT

from repro.composition import compose
from repro.errors import UserError
from repro.launch.inline import execute_in_child
from repro.paper_tables import load_table
from repro.runs.record import Record, record_for
from repro.runs.status import EXIT_STOPPED, Status
from repro.training import checkpoint, heartbeat
from repro.training.finished import finished_weights
from repro.training.task import EXIT_DONE, EXIT_FAILED, execute

ROW = load_table("table1").select(["deit_tiny/s2vite-30"])[0]
CPU = torch.device("cpu")
KILLS = 50
TESTS = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS.parent)}


def new_record(root: Path, *overrides: str) -> Record:
    config = compose([*ROW.overrides, "scale=smoke", "tracker=none", *overrides])
    record = record_for(root, config, "table1", ROW.id)
    record.create(config, "table1", ROW.id)
    return record


def in_child(record: Record) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["repro.launch.preload"])
    process = context.Process(target=execute_in_child, args=(record.path,))
    process.start()
    return process


def wait_for(record: Record, updates: int) -> None:
    until = time.monotonic() + 90
    while record.status().update < updates:
        assert time.monotonic() < until, record.status()
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_while_it_saves(tmp_path: Path) -> None:
    """Whatever the moment, the newest whole checkpoint is at most one behind what was reported as saved."""
    moments = random.Random(0)
    start = 0
    context = multiprocessing.get_context("fork")  # a server's children would import this file, fifty times
    for _ in range(KILLS):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_save_for_ever, args=(tmp_path, start, writer))
        process.start()
        writer.close()
        reader.recv()  # the first save of this process is on disk
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        reported = _last(reader, start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a checkpoint without its checksum yet
            state = checkpoint.load_latest(tmp_path, CPU)
        assert state is not None
        assert state["update"] >= reported, "a checkpoint that was saved is gone"
        assert torch.equal(state["weights"], torch.full((50000,), float(state["update"])))
        start = state["update"] + 1
    assert len(list(tmp_path.glob("update-*.pt"))) <= checkpoint.KEPT + 1


def _save_for_ever(folder: Path, start: int, writer: multiprocessing.connection.Connection) -> None:
    torch.set_num_threads(1)  # a fork has none of its parent's OpenMP threads, and would wait for them
    for update in range(start, start + 100_000):
        checkpoint.save(folder, update, {"update": update, "weights": torch.full((50000,), float(update))})
        writer.send(update)


def _last(reader: multiprocessing.connection.Connection, last: int) -> int:
    try:
        while reader.poll():
            last = reader.recv()
    except (EOFError, OSError):
        pass  # cut off by the kill
    return last


DAMAGES = ("truncated", "bit flipped", "empty", "unreadable", "no checksum", "checksum of another")


@pytest.mark.parametrize("damage", [*DAMAGES, "checksum bit flipped", "checksum unreadable"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    for update in (1, 2):
        checkpoint.save(tmp_path, update, {"update": update, "weights": torch.ones(1000)})
    newest = tmp_path / "update-000000002.pt"
    spoil(newest, damage)
    with pytest.warns(RuntimeWarning, match=r"update-000000002.pt is damaged; going back"):
        state = checkpoint.load_latest(tmp_path, CPU)
    assert state is not None
    assert state["update"] == 1
    assert checkpoint.load_after(tmp_path, 2, CPU) is None
    checkpoint.save(tmp_path, 2, {"update": 2, "weights": torch.zeros(1000)})  # the next attempt gets there again
    again = checkpoint.load_latest(tmp_path, CPU)
    assert again is not None
    assert float(again["weights"].sum()) == 0


def spoil(newest: Path, damage: str) -> None:
    """Damage a checkpoint or its checksum, as a disk does."""
    file = newest.with_suffix(".sha256") if damage.startswith("checksum") else newest
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    if damage == "truncated":
        file.write_bytes(content[:middle])
    elif damage == "bit flipped":
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "checksum bit flipped":  # the highest one: no text any more
        file.write_bytes(bytes([content[0] ^ 128]) + content[1:])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage.endswith("unreadable"):  # Linux answers with EIO, whoever asks
        file.unlink()
        file.symlink_to("/proc/self/mem")
    elif damage == "no checksum":
        newest.with_suffix(".sha256").unlink()
    else:
        shutil.copy(newest.with_name("update-000000001.sha256"), file)
        newest.write_bytes(newest.read_bytes()[:-1] + b"x")


def test_nothing_begins_with_an_earlier_epoch_of_a_finished_run(tmp_path: Path) -> None:
    """Its result would rest on another model than the one whose accuracy the table shows."""
    dense = compose([*VIT, *SHORT, "method=dense"])
    origin = record_for(tmp_path, dense, "table1", "deit_tiny/dense")
    origin.create(dense, "table1", "deit_tiny/dense")
    assert execute(origin.path, tell=lambda _: None) == EXIT_DONE
    checkpoints = sorted(origin.checkpoint_dir.glob("update-*.pt"))
    assert len(checkpoints) == 2
    spoil(checkpoints[-1], "bit flipped")
    omp = compose([*VIT, *SHORT, "method=omp"])
    begun = record_for(tmp_path, omp, "table1", "deit_tiny/omp-30")
    begun.create(omp, "table1", "deit_tiny/omp-30", starts_from=origin.path)
    assert execute(begun.path, tell=lambda _: None) == EXIT_FAILED
    assert f"begins with the weights of {origin.path}, which is finished and has lost its last checkpoint" in (
        begun.status().reason or ""
    )
    with pytest.raises(UserError, match="no last checkpoint that is whole"):
        finished_weights(origin, "last")


@pytest.fixture(params=["small disk", "limit of a file's size"])
def full_after_a_megabyte(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that takes no larger files."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "small disk":
        with small_disk(folder, "1m"):
            yield folder
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of that size, on this folder."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_fails_the_save_and_keeps_what_was_saved(full_after_a_megabyte: Path) -> None:
    folder = full_after_a_megabyte
    checkpoint.save(folder, 1, {"update": 1, "weights": torch.ones(100_000)})
    with pytest.raises(OSError, match=r"(No space left on device|File too large): '.*/small/update-000000002.pt'"):
        checkpoint.save(folder, 2, {"update": 2, "weights": torch.ones(1_250_000)})
    state = checkpoint.load_latest(folder, CPU)
    assert state is not None
    assert state["update"] == 1
    assert not list(folder.glob(".*.tmp"))


def test_a_run_on_a_full_disk_fails_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk(folder, "4m"):
        record = new_record(folder)
        (folder / "ballast").write_bytes(b"x" * (4096 * 1024 - 200 * 1024))
        process = in_child(record)
        process.join(90)
        assert (process.exitcode, record.status().state) == (EXIT_FAILED, "failed")
        assert "No space left on device" in (record.status().reason or "")
        (folder / "ballast").unlink()
        process = in_child(record)  # with room again it goes on
        process.join(90)
        assert (process.exitcode, record.status().state) == (EXIT_DONE, "done")


def limited(size: int, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours, on a disk that has no room for files of more than `size` bytes."""
    return subprocess.run(
        [sys.executable, str(TESTS / "small_files.py"), str(size), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=ENVIRONMENT,
    )


def test_no_room_for_a_record_is_one_line(tmp_path: Path) -> None:
    answer = limited(0, tmp_path, "launch", "table1", ROW.id, "--scale", "smoke", "tracker=none")
    assert answer.returncode == 2
    assert re.fullmatch(r"repro: runs/table1/\S+/status.json: File too large\n", answer.stderr)


def test_no_room_for_a_checkpoint_fails_the_run_and_a_retry_goes_on(tmp_path: Path) -> None:
    words = ("table1", ROW.id, "--scale", "smoke", "tracker=none")
    answer = limited(200_000, tmp_path, "launch", *words)
    assert answer.returncode == 1
    assert re.search(r"^failed: \S+: OSError: .*File too large: '\S+\.pt'", answer.stderr, re.MULTILINE)
    answer = limited(100_000_000, tmp_path, "retry", *words)
    assert answer.returncode == 0, answer.stderr
    (record,) = [Record(file.parent) for file in tmp_path.glob("runs/**/config.yaml")]
    assert (record.status().state, record.status().attempt) == ("done", 2)


def test_a_read_only_run_folder_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("a folder cannot be mounted read-only here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        answer = subprocess.run(
            [sys.executable, "-m", "repro", "launch", "table1", ROW.id, "--scale", "smoke", "--runs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=ENVIRONMENT,
        )
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert answer.returncode == 2
    assert "cannot write there (Read-only file system); set --runs" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_stale_lock_and_half_written_files_are_in_nobodys_way(tmp_path: Path) -> None:
    record = new_record(tmp_path)
    (record.path / "lock").touch()
    record.checkpoint_dir.mkdir()
    leftovers = [record.path / ".status.json.99.tmp", record.checkpoint_dir / ".update-000000004.pt.99.tmp"]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    assert execute(record.path, tell=lambda _: None) == EXIT_DONE
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
        assert execute(record.path, tell=said.append, take_over_s=0.5) == EXIT_STOPPED
    assert "stopped by an older attempt that is still at this run" in said[0]


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
        assert execute(record.path, tell=lambda _: None) == EXIT_DONE
    finally:
        done.set()
        thread.join()
    result = record.result() or {}
    assert result["wall_s"] > 0
    assert json.loads((record.path / "status.json").read_text())["state"] == "done"


def test_a_status_that_cannot_be_written_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said once; the metrics and the result are what counts."""
    record = new_record(tmp_path)
    monkeypatch.setattr(heartbeat, "AT_MOST_EVERY_S", 0.0)
    written = Record.set_status
    full = threading.Event()

    def set_status(self: Record, status: Status) -> None:
        if status.update >= 2 or full.is_set():
            full.set()
            raise OSError(28, "No space left on device")
        written(self, status)

    monkeypatch.setattr(Record, "set_status", set_status)
    assert execute(record.path, tell=lambda _: None) == EXIT_DONE
    assert capfd.readouterr().err.count("No space left on device") == 1
    assert record.result() is not None
    assert record.status().state == "running"
    monkeypatch.setattr(Record, "set_status", written)
    assert execute(record.path, tell=lambda _: None) == EXIT_DONE
    assert record.status().state == "done"

"""Full and read-only disks: the save, the run and the command say so, and what was saved stays."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Kept
from smoke_records import ROW, in_child, new_record

from repro.files import write_json
from repro.runs.record import Record
from repro.tracking.sinks import Sinks
from repro.training import attempt, checkpoint
from repro.training.attempt import EXIT_DONE, EXIT_FAILED

CPU = torch.device("cpu")
TESTS = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS.parent)}


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
        assert re.fullmatch(
            rf"{folder}/\S+: No space left on device; free some space and run the same command again, which resumes "
            r"\(rows of a table that have failed: with --retry\), or choose another folder of runs",
            record.status().reason or "",
        )
        (folder / "ballast").unlink()
        process = in_child(record)  # with room again it goes on
        process.join(90)
        assert (process.exitcode, record.status().state) == (EXIT_DONE, "done")


def test_a_result_without_room_is_not_summarised_as_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summaries: list[Mapping[str, Any] | None] = []

    class Summaries(Kept):
        def close(self, summary: Mapping[str, Any] | None) -> None:
            summaries.append(summary)

    def write(path: Path, value: Any) -> None:
        if path.name == "result.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_json(path, value)

    monkeypatch.setattr(attempt, "open_sinks", lambda *arguments: Sinks([Summaries()]))
    monkeypatch.setattr(attempt, "write_json", write)
    record = new_record(tmp_path)
    assert attempt.execute(record.path, log=lambda _: None) == EXIT_FAILED
    assert record.status().state == "failed"
    assert summaries == [None]


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
    line = r"repro: runs/table1/\S+/status.json: File too large; correct that, or give another path\n"
    assert re.fullmatch(line, answer.stderr)


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

"""Records to W&B: the real client against a server on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loopback import KEY, serving
from mirrored import (
    bytes_below,
    finished,
    new_record,
    repro,
    use,
)

from repro.runs.record import Record
from repro.tracking.mirror_file import read_mirror


def without_clock(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("_timestamp", "_runtime")}


def test_a_push_twice_sends_once_and_a_cut_off_push_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    first, second = finished(root), finished(root, "seed=1")
    with serving() as server:
        use(monkeypatch, server)
        assert repro("push", "table1", "--runs", str(root), "--project", "proj") == 0
        assert capsys.readouterr().out.count("9 entries") == 2
        run = next(run for name, run in server.runs.items() if first.config().signature[:16] in name)
        complete = list(run.history)
        assert [line["update"] for line in complete] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
        del run.history[4:]  # as if it had been cut off
        run.summary = {}
        assert repro("push", str(first.path), str(second.path)) == 0
        said = capsys.readouterr().out
        assert "5 entries" in said
        assert "up to date" in said
        assert [without_clock(line) for line in run.history] == [without_clock(line) for line in complete]
        assert run.summary["result/smoke_top1_best_pct"] == 78.5
        assert run.exit_code == 0
    mirror = read_mirror(first.path)
    assert mirror is not None
    assert (mirror.state, mirror.through_update) == ("current", 8)
    assert KEY.encode() not in bytes_below(root)


def test_a_push_to_a_server_that_fails_says_so_for_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = finished(tmp_path / "runs")
    with serving("401") as server:
        use(monkeypatch, server)
        assert repro("push", str(record.path)) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"failed   {record.path}: W&B did not take it (CommError")
    assert said.count("\n") == 1
    assert f"repro wandb push {record.path}" in said


def with_weights(root: Path, *overrides: str) -> Record:
    record = finished(root, "tracker.upload_weights=true", *overrides)
    record.weights_file.write_bytes(b"the finished weights")
    return record


def test_the_finished_weights_are_pushed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = with_weights(tmp_path)
    with serving() as server:
        use(monkeypatch, server)
        for _ in range(2):
            assert repro("push", str(record.path)) == 0
        (artifact,) = server.artifacts.stored
        assert artifact.state == "COMMITTED"
        assert artifact.files == {"weights.safetensors": b"the finished weights"}
        assert artifact.asked["artifactTypeName"] == "model"
        assert json.loads(artifact.asked["metadata"])["signature"] == record.config().signature
        assert artifact.manifest["contents"]["weights.safetensors"]["size"] == len(b"the finished weights")
        assert len([path for path in server.requests if path.endswith("weights.safetensors")]) == 1
        assert not server.unknown
    assert "up to date" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("broken", "error"),
    [("answers", "ValidationError"), ("files", "most remaining uploads (1/1) have failed")],
)
def test_weights_that_do_not_arrive_are_one_line_and_the_others_are_pushed(
    broken: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = with_weights(tmp_path), finished(tmp_path, "seed=1")
    with serving() as server:
        use(monkeypatch, server)
        server.artifacts.answers_nonsense = broken == "answers"
        server.artifacts.refuses_files = broken == "files"
        assert repro("push", str(tmp_path)) == 1
        said = capsys.readouterr().out.splitlines()
        (failed,) = (line for line in said if line.startswith("failed"))
        assert failed.startswith(f"failed   {first.path}: W&B did not take it (")
        assert error in failed
        assert failed.endswith(f"again: repro wandb push {first.path}")
        assert [line for line in said if line.startswith(f"pushed   {second.path}: 9 entries")]
        server.artifacts.answers_nonsense = server.artifacts.refuses_files = False
        assert repro("push", str(tmp_path)) == 0
        assert [artifact.state for artifact in server.artifacts.stored][-1] == "COMMITTED"
    mirror = read_mirror(first.path)
    assert mirror is not None
    assert mirror.state == "current"


def test_a_damaged_record_does_not_keep_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = finished(tmp_path), finished(tmp_path, "seed=1")
    (first.path / "status.json").write_text("{")
    with serving() as server:
        use(monkeypatch, server)
        assert repro("push", str(tmp_path)) == 1
    said = capsys.readouterr().out
    assert f"failed   {first.path}: {first.path}/status.json: damaged" in said
    assert f"pushed   {second.path}: 9 entries" in said


def test_push_needs_a_key_and_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = finished(tmp_path / "runs")
    assert repro("push", str(record.path)) == 2
    assert "not logged in to W&B: run `wandb login`" in capsys.readouterr().err
    assert repro("push", "table7", "--runs", str(tmp_path)) == 2
    assert "table7: no run record" in capsys.readouterr().err


def test_a_run_at_work_is_left_to_its_own_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, _ = new_record(tmp_path / "runs", "tracker=none")
    record.set_status(record.status().moved("running"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert repro("push", str(record.path)) == 0
    assert "is running; it mirrors itself" in capsys.readouterr().out

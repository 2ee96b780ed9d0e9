"""Records to W&B and back: the real client against a server on this machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from loopback import KEY, Server, serving
from mirrored import bytes_below, new_record, result_of_run, write_run

from repro.cli import main
from repro.errors import UserError
from repro.runs.files import write_json
from repro.runs.record import Record
from repro.tracking.client import CONFIG_TEXT
from repro.tracking.mirror_file import read_mirror
from repro.tracking.pull import RemoteRun, pull, remote_runs


def repro(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["wandb", *words])
    return int(ended.value.code or 0)


def use(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def finished(root: Path, *overrides: str) -> Record:
    """A finished run whose machine had no network."""
    record, config = new_record(root, "tracker=none", *overrides)
    write_run(record, config, range(1, 9))
    return record


def remote(record: Record, **result: Any) -> RemoteRun:
    """What a server has of a record, without a server."""
    about = record.about()
    cells = {**result_of_run(record.config()), **result}
    names = {f"result/{'smoke_' if key.startswith(('top', 'loss')) else ''}{key}": cells[key] for key in cells}
    config = {"signature": about["signature"], CONFIG_TEXT: json.dumps(about)}
    return RemoteRun("id", "http://w/e/p/runs/id", config, names)


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


def test_from_one_machine_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    record = finished(here)
    unfinished, config = new_record(here, "tracker=none", "seed=1")
    write_run(unfinished, config, range(1, 3), finished=False)
    with serving() as server:
        use(monkeypatch, server)
        assert repro("push", str(here)) == 0
        assert repro("pull", "me/proj", "--runs", str(there)) == 0
        assert "1 pulled, 0 here already, 1 passed over" in capsys.readouterr().out
        assert repro("pull", "me/proj", "table1/deit_small", "--runs", str(there)) == 0
        assert "0 pulled, 1 here already" in capsys.readouterr().out
        assert remote_runs("me/proj")[0].url.startswith(server.url)
    pulled = Record(there / record.path.relative_to(here))
    assert pulled.result() == record.result()
    assert pulled.about() == record.about()
    assert pulled.config().signature == pulled.about()["signature"]
    assert pulled.status().state == "done"
    assert pulled.provenance()["commit"].startswith("c0ffee")
    assert pulled.provenance()["pulled_from"].startswith("http://127.0.0.1")


def test_what_a_pull_refuses(tmp_path: Path) -> None:
    record = finished(tmp_path / "theirs")
    other = finished(tmp_path / "theirs", "recipe.lr=0.001")
    mine = tmp_path / "mine"
    edited = remote(record)
    text = json.loads(edited.config[CONFIG_TEXT])
    text["recipe"]["epochs"] = 3
    edited = dataclasses.replace(edited, config={**edited.config, CONFIG_TEXT: json.dumps(text)})
    for runs, message in (
        ([edited], "conflicting signatures: it claims"),
        ([remote(record, signature="0" * 64)], "conflicting signatures: it claims 00000000"),
        ([remote(record), remote(record, wall_s=3.0)], "2 runs with the signature"),
        ([remote(record), remote(other)], "their configs differ"),
    ):
        with pytest.raises(UserError, match=message):
            pull(runs, mine)
        assert not mine.exists()
    assert len(pull([remote(record), remote(other)], mine, any_signature=True).written) == 2
    with pytest.raises(UserError, match=r"duplicate: this run was made twice.*wall_s 1.5 here, 9.0 there"):
        pull([remote(record, wall_s=9.0)], mine, any_signature=True)


def test_a_pull_does_not_touch_a_run_that_is_at_work_here(tmp_path: Path) -> None:
    theirs = finished(tmp_path / "theirs")
    mine, _ = new_record(tmp_path / "mine", "tracker=none")
    write_json(mine.path / "checkpoint.json", {})
    with pytest.raises(UserError, match="is here and requeued"):
        pull([remote(theirs)], tmp_path / "mine")
    assert mine.result() is None


def test_a_run_at_work_is_left_to_its_own_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, _ = new_record(tmp_path / "runs", "tracker=none")
    record.set_status(record.status().moved("running"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert repro("push", str(record.path)) == 0
    assert "is running; it mirrors itself" in capsys.readouterr().out

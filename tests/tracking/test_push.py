"""Push records to W&B, with the real client and a local server."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from loopback import KEY, Server, serving
from mirrored import (
    bytes_below,
    finished,
    new_record,
    repro,
    restart_client,
    result_of_run,
    train_entry,
    use,
    write_run,
)

from repro.files import write_json
from repro.runs.record import Record
from repro.tracking.mirror_file import Mirror, read_mirror, write_mirror
from repro.tracking.push import push
from repro.tracking.sinks import open_sinks
from repro.tracking.wandb_run import Timeouts


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
    assert said.startswith(f"failed   {record.path}: W&B did not accept it (CommError")
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
        assert failed.startswith(f"failed   {first.path}: W&B did not accept it (")
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
    assert "is running and mirrors itself" in capsys.readouterr().out


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_push_whose_entries_are_refused_has_failed(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client drops rejected entries and reports success.
    record = finished(tmp_path)
    with serving() as server:
        use(monkeypatch, server)
        server.stream_status = status
        (pushed,) = push([record], timeouts=Timeouts(confirm_s=0.5))
        (run,) = server.runs.values()
        assert not run.history
        reason = "the server refused entries: its last step is -1, the record's 34"
        again = f"repro wandb push {record.path}"
        assert pushed.failed == f"W&B did not accept it ({reason}); try again: {again}"
        mirror = read_mirror(record.path)
        assert mirror is not None
        assert (mirror.state, mirror.reason, mirror.push) == ("behind", reason, again)
        server.stream_status = 200
        assert repro("push", str(record.path)) == 0
        assert len(run.history) == 9
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.reason, mirror.push) == ("current", "", "")


def test_a_push_leaves_what_is_known_of_the_runs_own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, config = new_record(tmp_path)
    about_node = {"commit": "c0ffee" * 6 + "c0de", "host": "node7", "argv": ["repro", "launch", "table1"]}
    write_json(record.path / "provenance.json", about_node)
    with serving() as server:
        use(monkeypatch, server)
        write_run(record, config, range(1, 9))  # live, on its machine
        (run,) = server.runs.values()
        before, about = dict(run.files), dict(run.about)
        assert {"wandb-metadata.json", "requirements.txt"} <= before.keys()
        run.history.pop()  # as if its end had been cut off
        run.summary = {}
        assert repro("push", str(record.path)) == 0
        same = before.keys() - {"wandb-summary.json", "config.yaml"}
        assert {name: run.files[name] for name in same} == {name: before[name] for name in same}
        assert {name: run.about[name] for name in about if name != "id"} == about
        # The same run from a machine without network: information about the machine is that of the training machine.
        server.runs.clear()
        assert repro("push", str(record.path)) == 0
        (run,) = server.runs.values()
        assert run.files["requirements.txt"] == b"torch==2.8.0+node\n"
        assert "wandb-metadata.json" not in run.files
        assert (run.about["host"], run.about["program"]) == ("node7", "repro")
        assert run.about["commit"].startswith("c0ffee")
        # A record from an older version has no requirements: better none than those of the pushing machine.
        server.runs.clear()
        (record.path / "requirements.txt").unlink()
        assert repro("push", str(record.path)) == 0
        (run,) = server.runs.values()
        assert "requirements.txt" not in run.files


def test_a_run_that_is_done_and_still_sends_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A run is done before its mirror is closed; two concurrent writers would overwrite each other's lines.
    record, config = new_record(tmp_path)
    with serving() as server:  # records concurrent writers
        use(monkeypatch, server)
        with FileLock(record.path / "lock"):
            sinks = open_sinks(record, config, is_first=True)
            for update in range(1, 9):
                sinks.write(train_entry(update))
            result = result_of_run(config)
            write_json(record.path / "result.json", result)
            record.set_status(record.status().moved("done"))
            assert repro("push", str(record.path)) == 0
            assert capsys.readouterr().out == f"skipped  {record.path}: its process has not exited and mirrors itself\n"
            sinks.close(result)
        assert repro("push", str(record.path)) == 0
        (run,) = server.runs.values()
    assert "up to date" in capsys.readouterr().out
    assert [line["update"] for line in run.history] == list(range(1, 9))


def test_a_run_of_another_machine_is_left_alone_as_long_as_it_may_be_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = finished(tmp_path)
    write_mirror(record.path, Mirror("live", "online", "id"))
    here, now = platform.node(), record.status().heartbeat
    with serving() as server:
        use(monkeypatch, server)
        for host, heartbeat, word in (
            ("elsewhere", now, "skipped"),
            ("elsewhere", now - 600, "pushed"),
            (here, now, "pushed"),
        ):
            record.set_status(replace(record.status(), host=host, heartbeat=heartbeat))
            write_mirror(record.path, Mirror("live", "online", "id"))
            assert repro("push", str(record.path)) == 0
            assert capsys.readouterr().out.startswith(f"{word} ")


def projects_of(server: Server) -> list[str]:
    return sorted(key.partition("/")[0] for key in server.runs)


def test_a_push_goes_where_the_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, config = new_record(tmp_path)
    with serving() as server:
        use(monkeypatch, server)
        monkeypatch.setenv("WANDB_PROJECT", "of-the-cluster")
        write_run(record, config, range(1, 9), finished=False)
        mirror = read_mirror(record.path)
        assert mirror is not None
        assert (mirror.entity, mirror.project) == ("me", "of-the-cluster")
        monkeypatch.delenv("WANDB_PROJECT")  # the shell in which the user runs the command
        assert repro("push", str(record.path)) == 0
        assert projects_of(server) == ["of-the-cluster"]
        monkeypatch.setenv("WANDB_PROJECT", "another")
        assert repro("push", str(record.path)) == 0
        sinks = open_sinks(record, config, is_first=True)  # its next attempt, from there
        sinks.close(None)
        assert projects_of(server) == ["of-the-cluster"]
        assert repro("push", str(record.path), "--project", "me/elsewhere") == 0
        assert projects_of(server) == ["elsewhere", "of-the-cluster"]


@pytest.mark.parametrize("tracker", ["none", "wandb"])
def test_a_push_of_a_run_that_was_never_sent(tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "of-the-node")
    record, config = new_record(tmp_path, f"tracker={tracker}")
    write_run(record, config, range(1, 3))
    offline, _ = new_record(tmp_path, "seed=1", f"tracker={tracker}")
    shutil.copytree(record.path, offline.path, dirs_exist_ok=True, ignore=lambda *_: ["config.yaml", "wandb"])
    restart_client()  # as in a new process, since the client has already read its settings
    own = "of-the-node" if tracker == "wandb" else "repro-sparse-vit"
    with serving() as server:
        use(monkeypatch, server)
        monkeypatch.delenv("WANDB_PROJECT")
        assert repro("push", str(record.path)) == 0
        assert projects_of(server) == [own]
        monkeypatch.setenv("WANDB_PROJECT", "of-the-shell")  # there is no run yet that it would duplicate
        assert repro("push", str(offline.path)) == 0
        assert projects_of(server) == sorted([own, "of-the-shell"])


def test_a_record_without_a_project_goes_where_a_dashboard_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, config = new_record(tmp_path, "tracker=none", "tracker.project=null")  # as `tracker=none` used to be
    write_run(record, config, range(1, 3))
    with serving() as server:
        use(monkeypatch, server)
        assert repro("push", str(record.path)) == 0
        assert projects_of(server) == ["repro-sparse-vit"]
    assert repro("push", str(record.path), "--project", "a/b/c") == 1
    assert "'a/b/c' is no project; give --project [ENTITY/]PROJECT" in capsys.readouterr().out


def test_a_push_waits_longer_than_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, config = new_record(
        tmp_path, "tracker.mode=offline", "tracker.init_timeout_s=0.05", "tracker.finish_timeout_s=0.05"
    )
    write_run(record, config, range(1, 9))
    restart_client()
    with serving() as server:
        use(monkeypatch, server)
        server.delay_s = 0.3
        assert repro("push", str(record.path)) == 0
        (run,) = server.runs.values()
        assert len(run.history) == 9


def test_a_pulled_record_is_not_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = finished(tmp_path)
    write_json(record.path / "provenance.json", {"pulled_from": "http://w/e/p/runs/id"})
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert repro("push", str(record.path)) == 0
    assert capsys.readouterr().out == f"skipped  {record.path}: was pulled from http://w/e/p/runs/id\n"

"""What a server took of a run is asked for, not taken for granted; and what WANDB_MODE and netrc say is heeded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from loopback import KEY, serving
from mirrored import bytes_below, new_record, repro, result_of_run, use, write_run, write_run_into

from repro.cli import main
from repro.tracking import push, wandb_mirror
from repro.tracking.mirror_file import read_mirror
from repro.tracking.open import open_sinks
from repro.tracking.run_log import RunLog
from repro.tracking.segment import offline_runs


@pytest.mark.parametrize("refuses_from", [0, 1])
def test_a_server_that_refuses_entries_after_it_has_taken_the_run(
    refuses_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The client drops what is refused and ends the run as if all were well.
    monkeypatch.setattr(wandb_mirror, "_CONFIRM_S", 1.0)
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        if refuses_from:
            write_run(record, config, range(1, 5), finished=False)
        server.stream_status = 403
        write_run(record, config, range(5, 9))
        (run,) = server.runs.values()
        reached = 4 * 4 + 2 if refuses_from else -1
        assert (run.history[-1]["_step"] if run.history else -1) == reached
        assert not [name for name in run.summary if name.startswith("result/")]
        mirror = read_mirror(record.path)
        assert mirror is not None
        assert mirror.state == "behind"
        assert mirror.reason == f"the server refused entries: its last step is {reached}, the record's 34"
        said = capsys.readouterr().err
        assert f"behind ({mirror.reason}); the record is complete; send it later: {mirror.push}" in said
        assert f"push {record.path}" in mirror.push


def test_a_server_that_takes_the_entries_and_refuses_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_mirror, "_CONFIRM_S", 1.0)
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9), finished=False)
        server.stream_status = 403
        sinks = open_sinks(record, config, is_first=True)
        sinks.close(result_of_run(config))
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.reason) == ("behind", "the server refused the result")


def test_entries_that_are_lost_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As the client does it where the disk under its own file is full: first and last arrive, what is between does not.
    monkeypatch.setattr(wandb_mirror, "_CONFIRM_S", 0.5)
    monkeypatch.setattr(push, "_CONFIRM_S", 0.5)
    finish = RunLog.finish
    with serving() as server:
        use(monkeypatch, server)

        def finish_with_a_gap(*words: Any) -> None:
            finish(*words)
            (run,) = server.runs.values()
            del run.history[3:5]

        monkeypatch.setattr(RunLog, "finish", finish_with_a_gap)
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9))
        monkeypatch.setattr(RunLog, "finish", finish)
        mirror = read_mirror(record.path)
        assert mirror is not None
        assert mirror.state == "behind"
        assert mirror.reason.startswith("the server has 7 of 9 entries and takes none any more before its last")
        assert repro("push", str(record.path)) == 1  # it cannot mend that, and says so
        assert "(the server has 7 of 9 entries" in capsys.readouterr().out
        assert repro("push", str(record.path), "--project", "whole") == 0


def test_a_server_that_falls_silent_when_it_is_asked_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_mirror, "_CONFIRM_S", 1.0)
    with serving() as server:
        use(monkeypatch, server)
        finish = RunLog.finish

        def finish_and_hang(*words: Any) -> None:
            finish(*words)
            server.behaviour = "hang"

        monkeypatch.setattr(RunLog, "finish", finish_and_hang)
        record, config = new_record(tmp_path)
        started = time.monotonic()
        write_run(record, config, range(1, 9))
        assert time.monotonic() - started < 20, "the server would let it wait for 120 s"
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert mirror.state == "behind"
    assert mirror.reason.startswith("the server does not say what it has (")


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_run_that_is_stopped_asks_too_and_ends_within_its_limit(
    is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        sinks = open_sinks(record, config, is_first=True)
        write_run_into(sinks, range(1, 9))
        monkeypatch.setattr(wandb_mirror, "_STOPPED_S", 30.0)  # so that what ends it is its question's own limit
        monkeypatch.setattr(wandb_mirror, "_CONFIRM_STOPPED_S", 0.5)
        monkeypatch.setattr(wandb_mirror, "_CONFIRM_S", 600.0)
        server.stream_status = 403 if is_refused else 200
        sinks.close(None)
        (run,) = server.runs.values()
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert mirror.state == ("behind" if is_refused else "current")
    assert run.preempting != is_refused  # W&B shows a run that goes on later as that, not as failed


def test_a_failed_run_is_not_called_preempted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        record.set_status(record.status().moved("failed"))
        write_run(record, config, range(1, 9), finished=False)
        (run,) = server.runs.values()
    assert (run.preempting, run.exit_code) == (False, 1)


@pytest.mark.parametrize("mode", ["disabled", "offline", "dryrun"])
def test_wandb_mode_is_heeded_where_a_key_is_there(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9))
        assert not server.requests
        mirror = read_mirror(record.path)
        if mode == "disabled":
            assert mirror is None
            assert not (record.path / "wandb").exists()
        else:
            assert mirror is not None
            assert (mirror.mode, mirror.reason) == ("offline", "WANDB_MODE=offline")
            assert len(offline_runs(record.path)) == 1
        other, config = new_record(tmp_path, "seed=1", "tracker.mode=online")  # what the run itself asks for goes first
        write_run(other, config, range(1, 9))
        assert len(server.runs) == 1


BROKEN_NETRC = f"machine 127.0.0.1\nlogin user {KEY}\n"  # `password` was left out: the parser's message quotes the key


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_key_in_a_broken_netrc_is_not_shown(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home" / "netrc"
    path.write_text(BROKEN_NETRC)
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        record, config = new_record(tmp_path / "runs", f"tracker.mode={mode}")
        write_run(record, config, range(1, 9))
        for words in (["push", str(record.path)], ["pull", "proj"], ["dashboard", "table1", "--runs", str(tmp_path)]):
            assert repro(*words) == 2
        with pytest.raises(SystemExit):
            main(["doctor"])
    said = "".join(capfd.readouterr())
    assert said.count(f"{path}: line 3 is not understood; it may hold W&B's key: mend it") == 4
    assert f"{path}: cannot be read (line 3)" in said.replace("\n", "")
    assert KEY not in said
    assert KEY.encode() not in bytes_below(tmp_path / "runs")


def test_a_netrc_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home" / "netrc").write_bytes(b"machine \xff\xfe login")
    assert repro("pull", "proj") == 2
    assert "netrc: cannot be read (UnicodeDecodeError)" in capsys.readouterr().err

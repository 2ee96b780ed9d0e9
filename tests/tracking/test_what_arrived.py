"""The mirror asks the server what it has received; WANDB_MODE and netrc are respected."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback import KEY, serving
from mirrored import (
    ROW,
    bytes_below,
    new_record,
    offline_segments,
    open_with,
    repro,
    result_of_run,
    use,
    write_run,
    write_run_into,
)

from repro.cli.main import main
from repro.tracking.mirror_file import read_mirror
from repro.tracking.push import push
from repro.tracking.wandb_run import Timeouts

BRIEF = Timeouts(confirm_s=1)


@pytest.mark.parametrize("refuses_from", [0, 1])
def test_a_server_that_refuses_entries_after_it_has_taken_the_run(
    refuses_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The client drops rejected entries and ends the run as if it had succeeded.
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        if refuses_from:
            write_run(record, config, range(1, 5), finished=False)
        server.stream_status = 403
        write_run(record, config, range(5, 9), timeouts=BRIEF)
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
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9), finished=False)
        server.stream_status = 403
        sinks = open_with(record, config, BRIEF)
        sinks.close(result_of_run(config))
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.reason) == ("behind", "the server refused the result")


def test_entries_that_are_lost_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a full disk under the client's own file: the first and last entries arrive, others do not."""
    with serving() as server:
        use(monkeypatch, server)
        server.loses = slice(3, 5)
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9), timeouts=BRIEF)
        mirror = read_mirror(record.path)
        assert mirror is not None
        assert mirror.state == "behind"
        assert mirror.reason.startswith("the server has 7 of 9 entries and accepts none before its last")
        server.loses = None
        (pushed,) = push([record], None, BRIEF)
        assert "(the server has 7 of 9 entries" in pushed.failed, "a push cannot repair it"
        (pushed,) = push([record], "other", BRIEF)
        assert pushed.sent == 9


def test_a_server_that_does_not_answer_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        use(monkeypatch, server)
        server.hangs_at_end = True
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9), timeouts=BRIEF)
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert mirror.state == "behind"
    assert mirror.reason.startswith("the server does not answer what it has (")


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_run_that_is_stopped_asks_too_and_ends_within_its_limit(
    is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        # Closing would time out after 30 s, and the query to the server after 600 s, without the limit of its own.
        sinks = open_with(record, config, Timeouts(stopped_s=30, confirm_stopped_s=0.5, confirm_s=600))
        write_run_into(sinks, range(1, 9))
        server.stream_status = 403 if is_refused else 200
        sinks.close(None)
        (run,) = server.runs.values()
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert mirror.state == ("behind" if is_refused else "current")
    assert not server.alerts
    assert run.preempting != is_refused  # W&B shows a run that resumes later as preempted, not as failed


def test_a_failed_run_sends_an_alert_and_is_not_preempted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        record.set_status(record.status().moved("failed", reason="the loss is not finite (nan) at update 8 of 8"))
        write_run(record, config, range(1, 9), finished=False)
        (run,) = server.runs.values()
        (alert,) = server.alerts
    assert (run.preempting, run.exit_code) == (False, 1)
    assert alert["title"] == f"{ROW.id} smoke seed0 failed"
    assert alert["text"] == "the loss is not finite (nan) at update 8 of 8"


@pytest.mark.parametrize(
    ("variable", "mode"),
    [("WANDB_MODE", "disabled"), ("WANDB_MODE", "offline"), ("WANDB_MODE", "dryrun"), ("WANDB_DISABLED", "true")],
)
def test_the_environments_mode_is_respected_with_a_key(
    variable: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, mode)
    with serving() as server:
        use(monkeypatch, server)
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9))
        assert not server.requests
        mirror = read_mirror(record.path)
        if mode in ("disabled", "true"):
            assert mirror is None
            assert not (record.path / "wandb").exists()
        else:
            assert mirror is not None
            assert (mirror.mode, mirror.reason) == ("offline", "WANDB_MODE=offline")
            assert len(offline_segments(record.path)) == 1
        other, config = new_record(tmp_path, "seed=1", "tracker.mode=online")  # the run's own setting takes precedence
        write_run(other, config, range(1, 9))
        assert len(server.runs) == 1


def test_a_mode_that_the_client_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "foo")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    message = "WANDB_MODE=foo: no such mode; valid: online, run, offline, dryrun, disabled"
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 9))
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.mode, mirror.reason) == ("behind", "none", message)
    assert f"W&B mirror is behind ({message})" in capsys.readouterr().err
    assert repro("push", str(record.path)) == 2
    assert message in capsys.readouterr().err
    words = ["scale=smoke", f"run.root={tmp_path / 'new'}"]
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    assert (ended.value.code, capsys.readouterr().err) == (2, f"repro: {message}\n")
    assert not (tmp_path / "new").exists()


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
    assert said.replace("\n", "").count(f"{path}: line 3 is invalid; it may hold your W&B key: fix it") == 5
    assert KEY not in said
    assert KEY.encode() not in bytes_below(tmp_path / "runs")


def test_a_netrc_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home" / "netrc").write_bytes(b"machine \xff\xfe login")
    assert repro("pull", "proj") == 2
    assert "netrc: cannot be read (UnicodeDecodeError)" in capsys.readouterr().err

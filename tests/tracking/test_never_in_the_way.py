"""Whatever W&B, its server or its disk does: training continues, the record is complete, stderr states the reason."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from loopback import KEY, serving
from mirrored import ROW, bytes_below, new_record, read_back, write_run

from repro.cli.main import main
from repro.tracking.mirror_file import one_line, read_mirror, write_mirror
from repro.tracking.run_log import RunLog
from repro.tracking.wandb_run import default_run_id
from repro.training.attempt import EXIT_DONE, execute

IMPATIENT = "tracker.init_timeout_s=0.5"


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)


@pytest.mark.parametrize("behaviour", ["500", "401"])
def test_a_server_that_does_not_serve_leaves_offline_files(
    behaviour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(behaviour) as server:
        use(monkeypatch, server.url)
        record, config = new_record(tmp_path, IMPATIENT)
        write_run(record, config, range(1, 9))
        assert server.requests
    said = capsys.readouterr().err
    assert "W&B cannot be reached" in said
    assert f"repro wandb push {record.path}" in said
    assert len(list(record.metrics())) == 9
    offline = read_back(record)
    assert offline["state"] == "finished"
    assert offline["summary"]["train/loss"] == pytest.approx(0.25)
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.mode) == ("behind", "offline")
    assert KEY not in said
    assert KEY.encode() not in bytes_below(record.path)


def test_a_server_that_refuses_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:  # bound, but not listening
        unused.bind(("127.0.0.1", 0))
        use(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}")
        record, config = new_record(tmp_path, IMPATIENT)
        write_run(record, config, range(1, 9))
    assert "W&B cannot be reached" in capsys.readouterr().err
    assert read_back(record)["summary"]["train/loss"] == pytest.approx(0.25)


def test_online_without_a_key_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, config = new_record(tmp_path, "tracker.mode=online")
    write_run(record, config, range(1, 9))
    assert "W&B cannot be reached" in capsys.readouterr().err
    assert read_back(record)["state"] == "finished"


def test_a_server_that_falls_silent_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(hang_after=0) as server:  # accepts the run, then hangs
        use(monkeypatch, server.url)
        record, config = new_record(tmp_path, "tracker.finish_timeout_s=1")
        write_run(record, config, range(1, 9))
    assert "W&B mirror is behind (TimeoutError" in capsys.readouterr().err
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.mode) == ("behind", "online")
    assert mirror.push == f"repro wandb push {record.path}"
    assert len(list(record.metrics())) == 9


STOPPED = """
import sys
from pathlib import Path
from mirrored import new_record, write_run
from repro.tracking.wandb_run import Timeouts
record, config = new_record(Path(sys.argv[1]))
timeouts = Timeouts(init_s=60, finish_s=60, stopped_s=1)
write_run(record, config, range(1, 9), finished=False, timeouts=timeouts)
"""


@pytest.mark.parametrize("hang_after", [None, 0])
def test_a_run_that_is_stopped_does_not_wait_for_a_silent_server(tmp_path: Path, hang_after: int | None) -> None:
    """Neither for one that never responded nor for one that has started the run. The process exits, too."""
    with serving("hang" if hang_after is None else "ok", hang_after) as server:
        answer = subprocess.run(
            [sys.executable, "-c", STOPPED, str(tmp_path / "runs")],
            capture_output=True, text=True, timeout=50, check=True, cwd=Path(__file__).parent,
            env={**os.environ, **server.environment, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )  # fmt: skip
    assert "W&B mirror is behind (not finished after 1 s)" in answer.stderr
    assert answer.stderr.count("warning:") == 1
    assert "Traceback" not in answer.stderr


def test_a_client_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError(f"http://me:{KEY}@host says no to {KEY}\nand more")

    monkeypatch.setattr(wandb, "init", refuse)
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 9))
    said = capsys.readouterr().err
    assert said.count("W&B mirror is behind (RuntimeError: http://***host says no to ***)") == 1
    assert KEY.encode() not in bytes_below(record.path)
    assert len(list(record.metrics())) == 9


def test_a_client_that_uses_another_run_does_not_pass_for_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **settings: init(**{**settings, "id": "of-somebody-else"}))
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 9))
    wanted = default_run_id(record.about())
    assert f"the client uses the run of-somebody-else in place of {wanted}: look at" in capsys.readouterr().err
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.run_id) == ("behind", wanted)


def test_a_client_that_exits_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As the client does if its service process has died: this would end a thread silently.
    def leave(*_: object, **__: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(RunLog, "write", leave)
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 9))
    assert "W&B mirror is behind (SystemExit: 1)" in capsys.readouterr().err
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.push) == ("behind", f"repro wandb push {record.path}")
    assert len(list(record.metrics())) == 9


def test_status_shows_what_is_behind_and_how_to_send_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 9))
    # A second run, whose attempt was killed while writing to the server.
    other, config = new_record(tmp_path, "seed=1")
    write_run(other, config, range(1, 9), finished=False)
    mirror = read_mirror(other.path)
    assert mirror is not None
    write_mirror(other.path, replace(mirror, state="live", mode="online", reason="", push=""))
    other.set_status(replace(other.status().moved("running"), heartbeat=0.0))
    selection = ["table1", ROW.id, "--scale", "smoke", "--seeds", "2", "--runs", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["status", *selection])
    without_account = capsys.readouterr().out.replace("\n", " ")
    assert "W&B is behind for 1 run (its last attempt was killed)" in without_account
    assert f"repro wandb push {other.path}" in without_account
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(SystemExit):
        main(["status", *selection])
    with_account = capsys.readouterr().out.replace("\n", " ")
    assert "W&B is behind for 2 runs (1 of them: not logged in to W&B)" in with_account
    assert f"repro wandb push {record.path.parent}" in with_account
    with pytest.raises(SystemExit):
        main(["status", *selection, "--json"])
    first, second = json.loads(capsys.readouterr().out)
    assert first["mirror"]["state"] == second["mirror"]["state"] == "behind"
    assert second["mirror"]["reason"] == "its last attempt was killed"
    assert second["mirror"]["push"] == f"repro wandb push {other.path}"


def test_no_key_in_anything_that_a_launch_and_a_report_leave(tmp_path: Path) -> None:
    with serving() as server:
        answers = [
            subprocess.run(
                [sys.executable, "-m", "repro", *words, "--scale", "smoke"],
                capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path,
                env={**os.environ, **server.environment, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )
            for words in (
                ["launch", "table1", "deit_tiny/dense", "launcher=local", "tracker=wandb"],
                ["status", "table1", "deit_tiny/dense"],
                ["report", "table1"],
                ["card", "table1"],
                ["wandb", "dashboard", "table1", "--project", "proj"],
            )
        ]  # fmt: skip
        assert {run.exit_code for run in server.runs.values()} == {0}, "the key was never used"
        assert server.views
    assert [answer.returncode for answer in answers] == [0] * 5, [answer.stderr for answer in answers]
    written = bytes_below(tmp_path)
    assert b"top1" in written
    assert (tmp_path / "reports" / "table1" / "smoke" / "table1.html").is_file()
    assert list((tmp_path / "runs").glob("**/.launch/**/*"))
    assert KEY.encode() not in written
    assert not [answer for answer in answers if KEY in answer.stdout + answer.stderr]


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, config = new_record(tmp_path)
    (record.path / "wandb").write_text("in the way")
    write_run(record, config, range(1, 9))
    assert "W&B mirror is behind (FileExistsError" in capsys.readouterr().err
    assert len(list(record.metrics())) == 9


FULL_DISK = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (160 * 1024, 160 * 1024))  # for each file, as a full disk would end it
from mirrored import new_record, write_run
record, config = new_record(Path(sys.argv[1]))
write_run(record, config, range(1, 501))
"""


def run_on_full_disk(folder: Path, environment: dict[str, str]) -> tuple[str, Path]:
    """Run with a limit on file sizes; return what the run prints to stderr, and the folder of its record."""
    answer = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder / "runs")],
        capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parent,
        env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    (path,) = (folder / "runs").glob("**/mirror.json")
    return answer.stderr, path.parent


def test_a_disk_that_fills_up_under_the_offline_files(tmp_path: Path) -> None:
    _, path = run_on_full_disk(tmp_path, {})
    mirror = read_mirror(path)
    assert mirror is not None
    assert (mirror.state, mirror.mode, mirror.push) == ("behind", "offline", f"repro wandb push {path}")
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 501
    assert (path / "result.json").is_file()


def test_a_disk_that_fills_up_under_a_run_that_is_mirrored_as_it_goes(tmp_path: Path) -> None:
    with serving() as server:
        said, path = run_on_full_disk(tmp_path, server.environment)
        (run,) = server.runs.values()
        sent = len(run.history)
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 501
    assert (path / "result.json").is_file()
    mirror = read_mirror(path)
    assert mirror is not None
    # If entries arrive faster than the client sends them, they are buffered in its file. It is random how many are
    # lost, and the client does not report it, but the state of the mirror must be correct.
    is_complete = sent == 501 and "result/smoke_top1_best_pct" in run.summary
    assert mirror.state == ("current" if is_complete else "behind")
    assert ("W&B mirror is behind (the server has " in said) == (sent < 501)


def test_a_training_with_a_server_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving("hang") as server:
        use(monkeypatch, server.url)
        record, _ = new_record(tmp_path, IMPATIENT, "tracker.finish_timeout_s=1")
        assert execute(record.path, log=lambda _: None) == EXIT_DONE
    assert record.status().state == "done"
    assert record.result() is not None
    assert "W&B cannot be reached" in capsys.readouterr().err
    assert read_back(record)["state"] == "finished"
    assert KEY.encode() not in bytes_below(record.path)


def test_messages_hold_no_secrets() -> None:
    text = one_line(ValueError(f"401 for https://user:secret@host/ with {KEY} and wandb_v1_{KEY}"))
    assert not re.search(r"secret|0123456789", text)
    assert text == "ValueError: 401 for https://***host/ with *** and ***"

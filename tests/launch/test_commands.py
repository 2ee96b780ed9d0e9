"""status, logs, cancel, retry and doctor, on real records."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from rich.console import Console, RenderableType

from repro.cli import status as status_command
from repro.cli.main import main
from repro.config.compose import compose
from repro.launch.check import Check
from repro.launch.doctor import examine, run_check
from repro.launch.failures import failures
from repro.launch.local_pool import enqueue
from repro.launch.logs import log_files
from repro.launch.manifest import Manifest, log_folder
from repro.launch.plan import plan
from repro.launch.queue import Queue
from repro.launch.requeue import RequeuePolicy
from repro.launch.slurm import Job
from repro.launch.status import RunStatus, run_statuses
from repro.runs.record import Record, all_records, record_for
from repro.runs.status import Status
from repro.tables.loader import load_table

ROOT = Path(__file__).resolve().parents[2]
REPRO = [sys.executable, "-m", "repro"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SMOKE = ["--scale", "smoke", "tracker=none"]


def repro(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REPRO, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )


def states(folder: Path, *words: str) -> dict[str, dict[str, object]]:
    entries = json.loads(repro(folder, "status", "table1", *words, *SMOKE, "--json").stdout)
    return {entry["row"]: entry for entry in entries}


@contextmanager
def at_work(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A launch of table1 at work, its first row at its first update."""
    launch = subprocess.Popen(
        [*REPRO, "launch", "table1", *words, *SMOKE],
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in a terminal, whose Ctrl-C reaches all that it has started
    )
    try:
        until = time.monotonic() + 120
        while not any(
            (status := record.status()).state == "running" and status.update for record in all_records(folder / "runs")
        ):
            assert time.monotonic() < until
            time.sleep(0.05)
        yield launch
    finally:
        launch.kill()
        launch.communicate()


def test_runs_save_on_ctrl_c_and_cancel_and_resume(tmp_path: Path) -> None:
    rows = ["deit_tiny/dense", "deit_tiny/svite-30"]
    words = [*rows, "recipe.epochs=300", "launcher=local", "launcher.parallel=1"]
    with at_work(tmp_path, *words) as first:
        assert [each["state"] for each in states(tmp_path, *words).values()] == ["running", "submitted"]
        # A second launch starts neither: one is at work, the other is queued.
        output = repro(tmp_path, "launch", "table1", *words, *SMOKE)
        assert "a process holds its lock" in output.stdout
        assert "queued by another launch" in output.stdout
        os.killpg(first.pid, signal.SIGINT)
        assert first.wait(60) == 130
    seen = states(tmp_path, *words)
    assert [seen[row]["state"] for row in rows] == ["requeued", "planned"]  # left the queue
    with at_work(tmp_path, *words) as second:
        answer = repro(tmp_path, "cancel", "table1", *words, *SMOKE)
        assert re.search(r"deit_tiny/dense: process \d+ saves and stops", answer.stdout)
        assert "deit_tiny/svite-30: removed from the queue of its launch" in answer.stdout
        assert second.wait(60) == 1
        assert second.stderr is not None
        assert "not finished: 2 runs; run the same command to resume" in second.stderr.read()
    seen = states(tmp_path, *words)
    assert [(seen[row]["state"], seen[row]["attempts"]) for row in rows] == [("cancelled", 2), ("cancelled", 0)]


def test_runs_of_no_table_are_named_by_their_folder(tmp_path: Path) -> None:
    for seed in ("0", "1"):
        trained = repro(tmp_path, "train", "scale=smoke", "tracker=none", "recipe.epochs=2", f"seed={seed}")
        assert trained.returncode == 0
    first = re.search(r"^done: (\S*seed1-\S*)$", trained.stdout, re.MULTILINE)
    assert first is not None
    logs = repro(tmp_path, "logs", first[1]).stdout
    assert "8 updates of 64 images" in logs
    assert repro(tmp_path, "logs", "runs/by_hand", "--seed", "1").stdout == logs
    states = json.loads(repro(tmp_path, "status", "runs/by_hand", "--json").stdout)
    assert [(each["row"], each["seed"], each["state"]) for each in states] == [
        ("deit_small/dense", 0, "done"),
        ("deit_small/dense", 1, "done"),
    ]
    assert repro(tmp_path, "cancel", "runs/by_hand").stdout == "no run is running or waiting\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("logs", "runs"), "runs: 2 runs; name the folder of one, such as"),
        (("logs", "runs", "--seed", "7"), "runs: no run of seed 7"),
        (("status", "runs", "seed=1"), "seed=1: row patterns and overrides go with a table, and runs is a folder"),
        (("status", "runs/nope"), "runs/nope: no such folder of records"),
        (("status", "empty/"), "empty: no run records"),
    ],
)
def test_a_folder_without_that_run_is_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    for seed in (0, 1):
        config = compose(["scale=smoke", f"seed={seed}"])
        record_for(tmp_path / "runs", config, "by_hand", "deit_small/dense").create(
            config, "by_hand", "deit_small/dense"
        )
    (tmp_path / "empty").mkdir()
    asked = repro(tmp_path, *words)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith(f"repro: {message}")
    assert asked.stderr.count("\n") == 1


def test_nothing_to_retry_and_no_logs_yet(tmp_path: Path) -> None:
    assert "no failed runs" in repro(tmp_path, "retry", "table1", "deit_tiny/dense", *SMOKE).stdout
    answer = repro(tmp_path, "logs", "table1", "deit_tiny/dense", *SMOKE)
    assert (answer.returncode, "no output yet" in answer.stderr) == (2, True)


def test_failures_with_the_same_error_are_one(tmp_path: Path) -> None:
    """Numbers and paths in it may differ."""

    def failed(row: str, reason: str) -> RunStatus:
        return RunStatus(row, 0, "failed", 0, 0, None, None, None, None, None, None, 1, reason, str(tmp_path))

    statuses = [failed("a", "no file /x/1"), failed("b", "no file /y/2"), failed("c", "the loss is nan")]
    found = failures(statuses, tmp_path, lambda run: f"logs {run.row} {run.seed}")
    assert [(failure.error, failure.rows, failure.command) for failure in found] == [
        ("no file /x/1", ("a", "b"), "logs a 0"),
        ("the loss is nan", ("c",), "logs c 0"),
    ]


def pasted(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a line that was printed."""
    return subprocess.run(
        line, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )


def test_printed_commands_work_when_pasted(tmp_path: Path) -> None:
    """Scale, seeds, overrides and the folder are those of the command that printed them."""
    bad = ["recipe.warmup_epochs=0", "recipe.lr=1e30", "--runs", "my runs; all 'of' them", *SMOKE]
    launched = repro(tmp_path, "launch", "table1", "deit_tiny/d*", "seeds=2", *bad)
    assert launched.returncode == 1
    output = repro(tmp_path, "status", "table1", "deit_tiny/dense", "seeds=2", *bad).stdout
    assert "2 failed with the same error" not in output  # one row, twice
    assert "1 failed with the same error: the loss is not finite" in output
    (shown,) = [line for line in output.splitlines() if " logs " in line]
    (wrote,) = [line for line in launched.stderr.splitlines() if line.startswith("its logs: ")]
    for command in (shown, wrote.removeprefix("its logs: ")):
        answer = pasted(command, tmp_path)
        assert (answer.returncode, "failed: the loss is not finite" in answer.stdout) == (0, True), answer
    (again,) = [line for line in launched.stderr.splitlines() if line.startswith("when the cause is fixed: ")]
    answer = pasted(again.removeprefix("when the cause is fixed: "), tmp_path)
    assert "failed: deit_tiny/dense and 1 more: the loss is not finite" in answer.stderr
    attempts = [file.read_text() for file in tmp_path.glob("my runs*/**/status.json")]
    assert [json.loads(text)["attempt"] for text in attempts] == [2, 2]


def test_a_setup_line_that_fails_starts_nothing(tmp_path: Path) -> None:
    words = ["deit_tiny/dense", *SMOKE, "launcher=local"]
    answer = repro(tmp_path, "launch", "table1", *words, "launcher.setup=['no_such_module_command load', 'true']")
    assert answer.returncode == 2
    assert re.fullmatch(r"repro: launcher\.setup: .*no_such_module_command: command not found\n", answer.stderr)
    assert states(tmp_path, *words)["deit_tiny/dense"]["state"] == "planned"


def test_runs_have_the_environment_that_setup_lines_leave(tmp_path: Path) -> None:
    words = ["deit_tiny/dense", *SMOKE, "launcher=local", "launcher.gpus_per_node=1", "run.device=cpu"]
    setup = "launcher.setup=['export CUDA_VISIBLE_DEVICES=7', 'cd /']"
    assert repro(tmp_path, "launch", "table1", *words, setup).returncode == 0
    assert "CUDA_VISIBLE_DEVICES=7\n" in repro(tmp_path, "logs", "table1", *words).stdout


def test_the_ranks_of_a_run_log_into_its_attempt(tmp_path: Path) -> None:
    words = ["deit_tiny/dense", *SMOKE, "launcher=local", "launcher.tasks_per_node=2"]
    assert repro(tmp_path, "launch", "table1", *words).returncode == 0
    (folder,) = tmp_path.glob("runs/table1/**/attempts/1")
    assert {file.name for file in folder.iterdir()} == {"stdout", "stderr", "stdout-rank1", "stderr-rank1"}
    assert "(2 ranks x 1 x 32)" in (folder / "stdout").read_text()
    assert "RANK=1" in (folder / "stdout-rank1").read_text()
    logs = repro(tmp_path, "logs", "table1", *words).stdout
    assert f"==> {(folder / 'stdout-rank1').relative_to(tmp_path)}" in logs


def test_logs_tell_what_happened(tmp_path: Path) -> None:
    words = ["deit_tiny/dense", *SMOKE]
    assert repro(tmp_path, "launch", "table1", *words).returncode == 0
    first, second, *lines = repro(tmp_path, "logs", "table1", *words).stdout.splitlines()
    assert re.fullmatch(r"runs/table1/deit_tiny/dense/smoke/seed0-\w{8}: done", first)
    assert second == "  1 attempt, 8 of 8 updates"
    assert re.fullmatch(r"  attempt 1: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \d+ s", lines[0])
    accuracies = r"loss \d\.\d{3}, top-1 \d+\.\d\d %, top-5 \d+\.\d\d %, \d+ s of training"
    assert re.fullmatch(rf"  epoch 1 \(update 4\): {accuracies}", lines[1])
    assert re.fullmatch(rf"  epoch 2 \(update 8\): {accuracies}", lines[2])
    both = r"  top-1 \d+\.\d\d % at the last epoch, \d+\.\d\d % at the best \([12]\), digits"
    assert re.fullmatch(both, lines[3])
    assert lines[4].startswith("==> ")


def test_the_logs_of_a_task_are_its_own(tmp_path: Path) -> None:
    table = load_table("table1")
    runs = plan(table, table.select(["deit_tiny/dense", "deit_tiny/svite-30"]), "smoke", [0], tmp_path)
    for run in runs:
        run.create()
    manifest = Manifest.create(tmp_path, "table1", [run.record for run in runs], RequeuePolicy())
    folder = log_folder(tmp_path, manifest.token)
    folder.mkdir(parents=True)
    names = ["16_0_0_log.err", "16_0_0_log.out", "16_1_0_log.out", "16_1_1_log.out", "16_10_0_log.out", "16_1_0.pkl"]
    for name in names:
        (folder / name).touch()
    for run, expected in zip(runs, (names[:2], names[2:4]), strict=True):
        # Its job has made no attempt: what Slurm has written is all that there is.
        run.record.set_status(run.record.status().moved("submitted", array=manifest.token))
        assert [file.name for file in log_files(run.record, tmp_path)] == expected


def test_the_logs_of_an_earlier_versions_job_are_found(tmp_path: Path) -> None:
    table = load_table("table1")
    (run,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    run.create()
    folder = tmp_path / ".launch" / "jobs"
    folder.mkdir(parents=True)
    names = ["16_3_0_log.err", "16_3_1_log.out", "163_0_log.out", "16_31_0_log.out", "16_3_submitted.pkl"]
    for name in names:
        (folder / name).touch()
    attempt = run.record.attempt_dir(run.record.claim_attempt())
    (attempt / "job").write_text(f"16_3\n{folder}/16_3_0_log.out\n{folder}/16_3_0_log.err\n")
    assert [file.name for file in log_files(run.record, tmp_path)] == names[:2]


def test_a_live_view_queries_slurm_at_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are read each time, and are newer than the queue then."""
    clock = [990.0]
    table = load_table("table1")
    (run,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    run.create()
    asked = []

    def query() -> Queue:
        asked.append(clock[0])
        return Queue({}, {}, clock[0])

    monkeypatch.setattr(status_command, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    queue = status_command.throttled(query)
    seen = []
    for moment in range(990, 1050, 2):
        clock[0] = float(moment)
        if moment == 994:  # submitted since the query
            submitted = replace(run.record.status(), state="submitted", job_id="7", heartbeat=clock[0])
            run.record.set_status(submitted)
        (status,) = run_statuses([run], queue(), clock[0], lambda _: {})
        seen.append(status.state)
    assert asked == [990.0, 1006.0, 1020.0, 1036.0]
    assert seen == ["planned"] * 2 + ["submitted"] * 6 + ["dead"] * 22


def test_a_live_view_lists_all_runs_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("repro.launch.text_table.MAX_ROWS", 1)

    class Shown(Exception):
        pass

    def show_once(view: Callable[[], RenderableType], out: Console) -> NoReturn:
        out.print(view())
        raise Shown

    monkeypatch.setattr(status_command, "_watch", show_once)
    rows = ["deit_tiny/dense", "deit_tiny/svite-30"]
    for option, listed in (("--seeds=1", False), ("--all", True)):
        with pytest.raises(Shown):
            main(["status", "table1", *rows, *SMOKE, "--watch", option, "--runs", str(tmp_path)])
        text = capsys.readouterr().out
        assert all(row in text for row in rows) == listed


def test_the_status_of_a_run_that_has_just_ended_is_that_of_its_end(tmp_path: Path) -> None:
    """It ends while it is looked at: its status is read before its lock."""
    table = load_table("table1")
    (run,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    run.create()
    failed = Status("failed", reason="the loss is not finite").moved("failed")

    class Ends(Queue):
        """A queue that is asked between the two."""

        def job_of(self, record: Record, status: Status) -> Job | None:
            record.set_status(failed)
            return None

    running = Status("running", host=platform.node(), pid=1, update=3).moved("running")
    run.record.set_status(running)
    (status,) = run_statuses([run], Ends({}, {}, time.time()), ended=lambda _: {})
    assert (status.state, status.reason) == ("failed", "the loss is not finite")


def test_a_run_that_is_submitted_after_the_query_is_not_dead(tmp_path: Path) -> None:
    table = load_table("table1")
    (run,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    run.create()
    queue = Queue({}, {}, time.time() - 1)
    run.record.set_status(run.record.status().moved("submitted", job_id="7"))
    (status,) = run_statuses([run], queue, ended=lambda _: {})
    assert status.state == "submitted"


def test_a_run_whose_node_has_failed_is_requeued_while_its_job_waits(tmp_path: Path) -> None:
    """Slurm has requeued its job, and the queue is long: its status is hours old."""
    table = load_table("table1")
    (run,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    run.create()
    now = 1_700_000_000.0
    beaten = Status("running", heartbeat=now - 3600, job_id="16", host="node7", update=3, updates=8)
    for age, slurm_says, state in (
        (3600, "PENDING", "requeued"),
        (3600, "RUNNING", "running"),
        (9, "PENDING", "running"),
    ):
        run.record.set_status(replace(beaten, heartbeat=now - age))
        queue = Queue({"16": Job("16", "repro-table1-x", slurm_says, "BeginTime", "")}, {}, now)
        (line,) = run_statuses([run], queue, now)
        assert line.state == state
        assert (line.reason or "").endswith("(pending: BeginTime)") == (state == "requeued")


def test_cancel_leaves_the_runs_that_selected_runs_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other rows may wait for them."""
    table, words = load_table("table3"), ["deit_small/ia_red2", "method.starts_from=table1/dense"]
    origin, selected = plan(table, table.select(words[:1]), "smoke", [0], tmp_path, words[1:])
    assert (origin.row.table, origin.row.id) == ("table1", "deit_small/dense")
    for run in (origin, selected):
        run.create()
    enqueue([origin, selected])
    with pytest.raises(SystemExit):
        main(["cancel", "table3", *words, *SMOKE, "--runs", str(tmp_path)])
    assert capsys.readouterr().out == "deit_small/ia_red2: removed from the queue of its launch\n"
    assert (origin.record.status().state, selected.record.status().state) == ("submitted", "cancelled")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """No file may have a single byte: as with a quota that is used up, to the last one."""
    command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *REPRO, "launch", "table1", "deit_tiny/dense", *SMOKE]
    answer = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert re.fullmatch(r"repro: \S+/status\.json: File too large; correct that, or give another path", line)


def test_a_check_that_raises_or_hangs_fails_with_advice() -> None:
    over = threading.Event()

    def raises() -> list[Check]:
        raise RuntimeError("broken\nand more")

    def hangs() -> list[Check]:
        over.wait(60)
        raise AssertionError

    try:
        (raised,) = run_check("file locks", raises, limit_s=60)
        (hung,) = run_check("disk", hangs, limit_s=0.2)
    finally:
        over.set()
    assert (raised.verdict, raised.found) == ("fail", "RuntimeError: broken")
    assert (hung.verdict, hung.found) == ("fail", "no answer within 0.2 s")
    assert raised.advice
    assert hung.advice


def test_doctor_has_all_checks(tmp_path: Path) -> None:
    config = compose(["scale=smoke"])
    found = {check.name: check for check in examine(config, tmp_path, [config.data])}
    assert found["data"].verdict == "pass"
    assert {"python", "torch", "gpu", "runs folder", "file locks", "disk", "W&B login", "slurm"} <= set(found)


def test_doctor_advises(tmp_path: Path) -> None:
    answer = repro(tmp_path, "doctor", "--json", "--scale", "paper", f"data.root={tmp_path}/nowhere")
    checks = {check["name"]: check for check in json.loads(answer.stdout)}
    assert answer.returncode == 1
    assert checks["data"]["verdict"] == "fail"
    assert "set data.root= to the folder that holds train/ and val/" in checks["data"]["advice"]
    for name in ("python", "torch", "gpu", "runs folder", "file locks", "disk", "W&B login", "slurm"):
        assert checks[name]["verdict"] in ("pass", "warn", "fail")


def test_doctor_reads_the_csv_files_of_the_data(tmp_path: Path) -> None:
    for file in ("train/n01440764/1.JPEG", "val/ILSVRC2012_val_00000001.JPEG"):
        (tmp_path / "in" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / file).write_bytes(b"")
    table = tmp_path / "in/LOC_val_solution.csv"
    config = compose(["scale=smoke", "data=imagenet", f"data.root={tmp_path / 'in'}"])

    def data_check() -> Check:
        (check,) = (each for each in examine(config, tmp_path, [config.data]) if each.name == "data")
        return check

    table.write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n")
    assert data_check() == Check("data", "pass", str(tmp_path / "in"))
    table.write_text("<html><body>Sign in</body></html>\n")
    check = data_check()
    found = f"{table}: an HTML page; download the file again, logged in if necessary"
    assert check == Check("data", "fail", found, "correct or restore that file")


@pytest.mark.parametrize(
    ("variable", "value", "verdict", "found"),
    [
        ("WANDB_MODE", "foo", "fail", "WANDB_MODE=foo: no such mode; valid: online, run, offline, dryrun, disabled"),
        ("WANDB_MODE", "dryrun", "pass", "not needed: WANDB_MODE or WANDB_DISABLED says offline"),
        ("WANDB_DISABLED", "true", "pass", "not needed: WANDB_MODE or WANDB_DISABLED says disabled"),
    ],
)
def test_doctor_checks_the_environment_of_wandb(
    variable: str, value: str, verdict: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    config = compose(["scale=smoke", "tracker.mode=auto"])
    (check,) = (each for each in examine(config, tmp_path, [config.data]) if each.name == "W&B login")
    assert (check.verdict, check.found) == (verdict, found)


@pytest.mark.parametrize("word", ["seeds=x", "seeds=0"])
def test_seeds_are_a_number(tmp_path: Path, word: str) -> None:
    answer = repro(tmp_path, "plan", "table1", word)
    assert answer.returncode == 2
    assert "seeds" in answer.stderr


def test_seeds_three_are_three_runs(tmp_path: Path) -> None:
    plan = json.loads(repro(tmp_path, "plan", "table1", "deit_tiny/dense", "seeds=3", "--json").stdout)
    assert [entry["seed"] for entry in plan] == [0, 1, 2]

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from repro.cli import main
from repro.commands import watching as watching_commands
from repro.composition import compose
from repro.launch import doctor, launching, watching
from repro.launch.check import Check
from repro.launch.doctor import examine
from repro.launch.failures import causes, job_logs
from repro.launch.overview import Line, lines
from repro.launch.plan import PlannedRun, plan
from repro.launch.slurm import Job
from repro.launch.submit import jobs_folder
from repro.launch.waiting import put_in_line
from repro.launch.watching import Asked
from repro.paper_tables import load_table
from repro.runs.record import Record
from repro.runs.status import Status

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
        while not any(entry["state"] == "running" and entry["update"] for entry in states(folder, *words).values()):
            assert time.monotonic() < until
        yield launch
    finally:
        launch.kill()
        launch.communicate()


def test_ctrl_c_and_cancel_save_and_launch_goes_on(tmp_path: Path) -> None:
    rows = ["deit_tiny/dense", "deit_tiny/svite-30"]
    words = [*rows, "recipe.epochs=300", "launcher=local", "launcher.parallel=1"]
    with at_work(tmp_path, *words) as first:
        assert [each["state"] for each in states(tmp_path, *words).values()] == ["running", "submitted"]
        # A second launch finds one at work and one in the line of the first, and starts neither.
        said = repro(tmp_path, "launch", "table1", *words, *SMOKE)
        assert "a process holds its lock" in said.stdout
        assert "another launch has it in its line" in said.stdout
        os.killpg(first.pid, signal.SIGINT)
        assert first.wait(60) == 130
    seen = states(tmp_path, *words)
    assert [seen[row]["state"] for row in rows] == ["requeued", "planned"]  # taken out of the line
    with at_work(tmp_path, *words) as second:
        answer = repro(tmp_path, "cancel", "table1", *words, *SMOKE)
        assert "deit_tiny/dense: asking process" in answer.stdout
        assert "deit_tiny/svite-30: taken out of the line" in answer.stdout
        assert second.wait(60) == 1
        assert second.stderr is not None
        assert "not finished: 2 runs; the same command goes on with them" in second.stderr.read()
    seen = states(tmp_path, *words)
    assert [(seen[row]["state"], seen[row]["attempts"]) for row in rows] == [("cancelled", 2), ("cancelled", 0)]


def test_nothing_to_retry_and_no_logs_yet(tmp_path: Path) -> None:
    assert "nothing has failed" in repro(tmp_path, "retry", "table1", "deit_tiny/dense", *SMOKE).stdout
    answer = repro(tmp_path, "logs", "table1", "deit_tiny/dense", *SMOKE)
    assert (answer.returncode, "nothing was written yet" in answer.stderr) == (2, True)


def test_causes_group_what_differs_in_numbers_only(tmp_path: Path) -> None:
    def failed(row: str, reason: str) -> Line:
        return Line(row, 0, "failed", 0, 0, None, None, None, None, None, None, 1, reason, str(tmp_path))

    entries = [failed("a", "no file /x/1"), failed("b", "no file /y/2"), failed("c", "the loss is nan")]
    found = causes(entries, tmp_path, lambda row, seed: f"logs {row} {seed}")
    assert [(cause.line, cause.rows, cause.show) for cause in found] == [
        ("no file /x/1", ("a", "b"), "logs a 0"),
        ("the loss is nan", ("c",), "logs c 0"),
    ]


def pasted(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a line that was printed."""
    return subprocess.run(
        line, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )


def test_commands_that_are_printed_work_when_pasted(tmp_path: Path) -> None:
    """Scale, seeds, overrides and the folder are those of the command that printed them."""
    bad = ["recipe.warmup_epochs=0", "recipe.lr=1e30", "--runs", "my runs; all 'of' them", *SMOKE]
    launched = repro(tmp_path, "launch", "table1", "deit_tiny/d*", "seeds=2", *bad)
    assert launched.returncode == 1
    said = repro(tmp_path, "status", "table1", "deit_tiny/dense", "seeds=2", *bad).stdout
    assert "2 failed alike" not in said  # one row, twice
    assert "1 failed alike: the loss is not finite" in said
    (shown,) = [line for line in said.splitlines() if " logs " in line]
    (wrote,) = [line for line in launched.stderr.splitlines() if line.startswith("what it wrote: ")]
    for command in (shown, wrote.removeprefix("what it wrote: ")):
        answer = pasted(command, tmp_path)
        assert (answer.returncode, "failed: the loss is not finite" in answer.stdout) == (0, True), answer
    (again,) = [line for line in launched.stderr.splitlines() if line.startswith("once it is mended: ")]
    answer = pasted(again.removeprefix("once it is mended: "), tmp_path)
    assert answer.stderr.count("failed: deit_tiny/dense: the loss is not finite") == 2
    attempts = [file.read_text() for file in tmp_path.glob("my runs*/**/status.json")]
    assert [json.loads(text)["attempt"] for text in attempts] == [2, 2]


def test_a_job_that_dies_before_it_takes_its_run_leaves_its_words(tmp_path: Path) -> None:
    words = ["deit_tiny/dense", *SMOKE, "launcher=local", "launcher.setup=['no_such_module_command load', 'exit 3']"]
    assert repro(tmp_path, "launch", "table1", *words).returncode == 1
    said = repro(tmp_path, "status", "table1", *words).stdout
    assert re.search("1 failed alike: .*no_such_module_command", said), said
    assert "no_such_module_command" in repro(tmp_path, "logs", "table1", *words).stdout


def test_the_logs_of_a_job_are_its_own(tmp_path: Path) -> None:
    folder = jobs_folder(tmp_path)
    folder.mkdir(parents=True)
    names = ["16_0_log.err", "16_1_log.out", "16_3_0_log.err", "16_3_1_log.out", "16_3_submitted.pkl", "163_0_log.out"]
    for name in names:
        (folder / name).touch()
    assert [file.name for file in job_logs(tmp_path, "16")] == names[:2]
    assert [file.name for file in job_logs(tmp_path, "16_3")] == names[2:4]


def test_a_live_view_asks_slurm_now_and_then_and_reads_records_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(watching.time, "time", lambda: clock[0])
    table = load_table("table1")
    (run,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    run.create()
    asked = []
    jobs: Asked[dict[str, Job]] = Asked(lambda: asked.append(clock[0]) or {})  # type: ignore[func-returns-value]
    seen = []
    for moment in range(1000, 1060, 2):
        clock[0] = float(moment)
        if moment == 1004:  # submitted since Slurm was asked, which knows of no such job
            run.record.set_status(run.record.status().moved("submitted", job_id="7"))
        (line,) = lines([run], jobs(), clock[0], jobs.at)
        seen.append(line.state)
    assert asked == [1000.0, 1016.0, 1032.0, 1048.0]
    assert seen == ["planned"] * 2 + ["submitted"] * 6 + ["dead"] * 22


def test_a_run_that_moves_while_it_is_looked_at_is_one_thing_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_table("table1")
    (run,) = plan(table, table.select(["deit_tiny/dense"]), "smoke", [0], tmp_path)
    run.create()
    now = time.time()
    for host in ("another-node", platform.node()):  # seen alive by its heartbeat, and by its lock, which has gone
        running = Status("running", heartbeat=now, host=host, pid=1, update=3)
        states = iter([running])
        failed = running.moved("failed", reason="the loss is not finite")
        with monkeypatch.context() as patched:
            patched.setattr(Record, "status", lambda _, states=states, failed=failed: next(states, failed))
            (line,) = lines([run], None, now)
        assert (line.state, line.reason) in (("running", None), ("failed", "the loss is not finite")), host


def test_a_run_that_is_submitted_while_slurm_is_asked_is_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer_from_before(runs: Sequence[PlannedRun]) -> dict[str, Job]:
        runs[0].create()
        runs[0].record.set_status(runs[0].record.status().moved("submitted", job_id="7"))
        return {}

    monkeypatch.setattr(launching, "jobs_if_any", answer_from_before)
    words = ["status", "table1", "deit_tiny/dense", *SMOKE, "--runs", str(tmp_path)]
    for more in ((), ("--json",)):
        with pytest.raises(SystemExit):
            main([*words, *more])
        said = capsys.readouterr().out
        assert ("submitted" in said, "dead" in said) == (True, False)


def test_a_run_whose_node_has_died_is_not_running_while_its_job_waits(tmp_path: Path) -> None:
    """Slurm has put the job back, and the queue is long: nobody writes its status for hours."""
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
        (line,) = lines([run], {"16": Job("16", "repro-table1-x", slurm_says, "BeginTime", "")}, now)
        assert line.state == state
        assert (line.reason or "").endswith("(pending: BeginTime)") == (state == "requeued")


def test_a_row_of_another_table_with_the_name_of_a_chosen_one_is_not_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No table is like that yet: one whose dense row is chosen beside a row that begins with another table's."""
    table, words = load_table("table3"), ["deit_small/dense", "deit_small/ia_red2"]
    own = plan(table, table.select(words[:1]), "smoke", [0], tmp_path)
    begun = plan(table, table.select(words[1:]), "smoke", [0], tmp_path, ["method.starts_from=table1/dense"])
    (other,) = [run for run in begun if run.row.table == "table1"]
    assert other.row.id == own[0].row.id
    for run in (*own, other):
        run.create()
    put_in_line([*own, other])
    monkeypatch.setattr(watching_commands, "planned", lambda _: (table, [*own, *begun]))
    with pytest.raises(SystemExit):
        main(["cancel", "table3", *words, *SMOKE, "--runs", str(tmp_path)])
    assert capsys.readouterr().out == "deit_small/dense: taken out of the line of a launch\n"
    assert other.record.status().state == "submitted"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """No file may have a single byte: as with a quota that is used up, to the last one."""
    command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *REPRO, "launch", "table1", "deit_tiny/dense", *SMOKE]
    answer = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert re.fullmatch(r"repro: \S+/status\.json: File too large", line)


def test_a_doctor_that_always_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that raises and one that hangs are lines like the others, with what to do."""
    over = threading.Event()

    def breaks(_: Path) -> Check:
        raise RuntimeError("unheard of\nand more")

    def hangs(_: Path) -> Check:
        over.wait(60)
        raise AssertionError

    monkeypatch.setattr(doctor, "_locks", breaks)
    monkeypatch.setattr(doctor, "_disk", hangs)
    monkeypatch.setattr(doctor, "_gpu", lambda: Check("gpu", "pass", "not asked"))
    try:
        found = {check.name: check for check in examine(compose(["scale=smoke"]), tmp_path, limit_s=5)}
    finally:
        over.set()
    assert (found["file locks"].verdict, found["file locks"].found) == ("fail", "RuntimeError: unheard of")
    assert (found["disk"].verdict, found["disk"].found) == ("fail", "no answer within 5 s")
    assert found["file locks"].advice
    assert found["disk"].advice
    assert found["data"].verdict == "pass"


def test_doctor_says_what_to_do(tmp_path: Path) -> None:
    answer = repro(tmp_path, "doctor", "--json", "--scale", "paper", f"data.root={tmp_path}/nowhere")
    checks = {check["name"]: check for check in json.loads(answer.stdout)}
    assert answer.returncode == 1
    assert checks["data"]["verdict"] == "fail"
    assert "data.root= the folder that holds train/ and val/" in checks["data"]["advice"]
    for name in ("python", "torch", "gpu", "runs folder", "file locks", "disk", "W&B login", "slurm"):
        assert checks[name]["verdict"] in ("pass", "warn", "fail")


@pytest.mark.parametrize("word", ["seeds=x", "seeds=0"])
def test_seeds_are_a_number(tmp_path: Path, word: str) -> None:
    answer = repro(tmp_path, "plan", "table1", word)
    assert answer.returncode == 2
    assert "seeds" in answer.stderr


def test_seeds_three_are_three_runs(tmp_path: Path) -> None:
    plan = json.loads(repro(tmp_path, "plan", "table1", "deit_tiny/dense", "seeds=3", "--json").stdout)
    assert [entry["seed"] for entry in plan] == [0, 1, 2]

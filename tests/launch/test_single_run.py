"""`repro train` while another process executes the same run."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from filelock import FileLock
from report_records import write_record
from rich.console import Console

from repro.config.compose import compose
from repro.errors import UserError
from repro.launch import progress
from repro.launch.plan import PlannedRun, row_of
from repro.launch.single_run import train
from repro.runs.record import record_for
from repro.tables.rows import SINGLE_RUNS


def test_a_run_that_is_alive_is_left_alone(tmp_path: Path) -> None:
    words = ["backbone=deit_tiny", "method=dense", "scale=smoke", "tracker=none", f"run.root={tmp_path}"]
    config = compose(words)
    record = record_for(tmp_path, config, SINGLE_RUNS, "deit_tiny/dense")
    record.create(config, SINGLE_RUNS, "deit_tiny/dense")
    record.set_status(record.status().moved("running"))
    before = (record.path / "config.yaml").read_bytes()
    with (
        FileLock(record.path / "lock"),
        pytest.raises(UserError, match="already running \\(a process holds its lock\\)"),
    ):
        train([*words, "run.checkpoint_every_s=7"], Console(file=io.StringIO()))
    assert (record.path / "config.yaml").read_bytes() == before


def test_the_result_of_a_finished_run_has_six_digits(tmp_path: Path) -> None:
    words = ["backbone=deit_tiny", "scale=smoke", "tracker=none", f"run.root={tmp_path}"]
    row = row_of(compose(words), SINGLE_RUNS)
    record = write_record(tmp_path, row, "smoke", 0, params_m=2.8934800000000016, updates=12345678)
    out = io.StringIO()
    assert train(words, Console(file=out, width=1000)) == 0
    lines = out.getvalue().splitlines()
    assert lines[0] == f"done: {record.path}"
    assert {"  params_m: 2.89348", "  updates: 12345678", "  top1_ema_last_pct: None"} <= {*lines}


def test_a_line_of_progress_names_the_runs_that_are_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["backbone=deit_tiny", "scale=smoke", f"run.root={tmp_path}"])
    row = row_of(config, SINGLE_RUNS)
    record = write_record(tmp_path, row, "smoke", 0, state="running")
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    out = io.StringIO()
    with progress.TableProgress("table", [PlannedRun(row, config, record)], Console(file=out, width=1000)) as shown:
        shown.watch([record.path])
        shown.watch([])
    lines = [line for line in out.getvalue().splitlines() if line.startswith("table: ")]
    assert [line.partition("; ")[2] for line in lines] == ["running: deit_tiny/dense starting"]


def test_labels_are_no_markup(tmp_path: Path) -> None:
    config = compose(["backbone=deit_tiny", "scale=smoke", f"run.root={tmp_path}"])
    row = row_of(config, SINGLE_RUNS)
    record = write_record(tmp_path, row, "smoke", 0, state="running")
    label = "tracker.tags=[a,b] data.root=[/x]"
    run, out = PlannedRun(row, config, record, label=label), io.StringIO()
    with progress.TableProgress("[/x]", [run], Console(file=out, width=1000, force_terminal=True)) as shown:
        shown.watch([record.path])
    assert label in out.getvalue()
    assert "[/x] runs done" in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def test_a_method_that_starts_from_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf" / "method"
    folder.mkdir(parents=True)
    for name, origin in (("loop", "loop"), ("one", "two"), ("two", "one")):
        (folder / f"{name}.yaml").write_text(f"defaults: [svite, _self_]\nname: {name}\nstarts_from: {origin}\n")
    monkeypatch.setenv("REPRO_PATH", str(tmp_path))
    for name, cycle in (("loop", "loop starts from loop"), ("one", "two starts from one starts from two")):
        with pytest.raises(UserError, match=f"^method.starts_from: {cycle}; correct conf/method$"):
            train(["backbone=deit_tiny", f"method={name}", "scale=smoke"], Console(file=io.StringIO()))

"""What a new user does on the command line: launch, stop, resume, report; and common mistakes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.tables.loader import load_table

REPRO = [sys.executable, "-m", "repro"]
ROOT = Path(__file__).resolve().parents[2]


def repro(folder: Path, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REPRO, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def cells(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "reports" / "table1" / "smoke" / "table1.csv").open(newline="") as stream:
        return {line["row"]: line for line in csv.DictReader(stream)}


ROWS = ["deit_tiny/dense deit_tiny/svite-30 deit_tiny/s2vite-30 deit_small/svite_plus-5-50"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a newcomer's folder")
    answer = repro(folder, "launch", "table1", *ROWS, "--scale", "smoke")
    assert answer.returncode == 0, answer.stderr
    *_, files, page = answer.stdout.splitlines()
    assert files.startswith("Files: reports/table1/smoke/ (csv, ")
    assert page == f"Page: open {(folder / 'reports' / 'index.html').as_uri()} in a browser"
    return folder


def test_the_table_has_verdicts_only_for_decided_cells(launched: Path) -> None:
    seen = cells(launched)
    assert list(seen) == ["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/s2vite-30", "deit_small/svite_plus-5-50"]
    row = seen["deit_small/svite_plus-5-50"]
    assert float(row["flops_saving_pct"]) == pytest.approx(49.24, abs=0.02)
    assert (row["flops_saving_pct_published"], row["flops_saving_pct_verdict"]) == ("49.32", "reproduced")
    assert row["top1_pct_verdict"] == "other scale"
    assert (row["top1_last_pct"], row["top1_best_pct"]) == ("", "")
    assert 0 < float(row["local_top1_last_pct"]) <= 100
    for name in ("figure1.svg", "figure1.png", "figure1.pdf", "table1.html", "table1.tex", "table1.md"):
        assert (launched / "reports" / "table1" / "smoke" / name).stat().st_size > 1000


def test_records_are_complete(launched: Path) -> None:
    (folder,) = (launched / "runs" / "table1" / "deit_tiny" / "svite-30" / "smoke").iterdir()
    assert folder.name.startswith("seed0-")
    for name in ("config.yaml", "status.json", "metrics.jsonl", "result.json", "provenance.json"):
        assert (folder / name).is_file()
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    result = json.loads((folder / "result.json").read_text())
    assert result["updates"] == 8
    assert result["density"] == pytest.approx(0.7, abs=0.01)
    assert (folder / "attempts" / "1" / "stdout").read_text().count("8 updates of 64 images (1 rank x 1 x 64)") == 1


def test_launching_again_starts_nothing(launched: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in (launched / "runs").rglob("status.json"))
    answer = repro(launched, "launch", "table1", *ROWS, "--scale", "smoke")
    assert answer.returncode == 0
    assert sorted(path.stat().st_mtime_ns for path in (launched / "runs").rglob("status.json")) == before


def test_reporting_again_writes_the_same_bytes(launched: Path) -> None:
    paths = [path for path in sorted((launched / "reports").rglob("*")) if path.is_file()]
    before = {path: path.read_bytes() for path in paths}
    assert repro(launched, "report", "table1", *ROWS, "--scale", "smoke").returncode == 0
    assert {path: path.read_bytes() for path in paths} == before


def test_ctrl_c_stops_and_the_same_command_resumes(tmp_path: Path) -> None:
    words = ["launch", "table1", "deit_tiny/dense", "deit_tiny/svite-30", "--scale", "smoke", "recipe.epochs=60"]
    process = subprocess.Popen(
        [*REPRO, *words, "launcher.parallel=2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wait_for(lambda: all(status(tmp_path, row).get("update", 0) > 0 for row in ("dense", "svite-30")), process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: every process of the group gets it
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopped; run the same command to resume" in errors
    assert "Traceback" not in errors
    stopped = {row: status(tmp_path, row) for row in ("dense", "svite-30")}
    for seen in stopped.values():
        assert seen["state"] == "requeued"
        assert "stopped by SIGINT; resumes from update" in str(seen["reason"])
    answer = repro(tmp_path, *words)
    assert answer.returncode == 0, answer.stderr
    for row, seen in stopped.items():
        now = status(tmp_path, row)
        assert (now["state"], now["attempt"], now["update"]) == ("done", 2, 240)
        (folder,) = (tmp_path / "runs" / "table1" / "deit_tiny" / row / "smoke").iterdir()
        assert f"resumed from update {seen['update']}" in (folder / "attempts" / "2" / "stdout").read_text()


def status(folder: Path, row: str) -> dict[str, object]:
    for path in (folder / "runs" / "table1" / "deit_tiny" / row / "smoke").glob("*/status.json"):
        return dict(json.loads(path.read_text()))
    return {}


def wait_for(condition, process: subprocess.Popen[str], timeout_s: float = 120) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.05)


def test_one_failing_run_does_not_disturb_the_others(tmp_path: Path) -> None:
    # The learning rate of the first is absurd: its loss is soon no number.
    words = ["deit_tiny/dense", "deit_tiny/s2vite-30", "--scale", "smoke", "recipe.warmup_epochs=0", "recipe.lr=1e30"]
    answer = repro(tmp_path, "launch", "table1", *words)
    assert answer.returncode == 1
    assert "failed: deit_tiny/dense: the loss is not finite" in answer.stderr
    assert "Traceback" not in answer.stderr
    seen = cells(tmp_path)
    assert seen["deit_tiny/dense"]["state"] == "failed"
    assert seen["deit_tiny/dense"]["params_m"]
    again = repro(tmp_path, "launch", "table1", *words)
    assert again.returncode == 1
    assert status(tmp_path, "dense")["attempt"] == 1  # failed runs start again with --retry only
    repro(tmp_path, "launch", "table1", *words, "--retry")
    assert status(tmp_path, "dense")["attempt"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launch", "table1", "deit_smal/*"], "no row matches 'deit_smal/*'"),
        (
            ["launch", "table1", "deit_tiny/dense", "recipe.epoch=3"],
            "recipe.epoch: no such key; nearest: recipe.epochs",
        ),
        (["train", "backbone=deit_tin", "method.sparsty=0.5"], "config: 2 errors"),
        (["report", "table9"], "no table 'table9'"),
        (["train", "data=imagefolder", "data.root=nowhere"], "nowhere"),
        (["train", "-m", "seed=0,1", "recipe.lr=-1,0.1"], "recipe.lr=-1: input should be greater than 0"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    answer = repro(tmp_path, *arguments)
    output = answer.stderr + answer.stdout
    assert message in output
    assert "Traceback" not in output
    assert answer.returncode == 2, output


def test_train_a_single_run_and_a_sweep(tmp_path: Path) -> None:
    by_hand = ["backbone=deit_tiny", "scale=smoke", "tracker=none", "method=svite"]
    answer = repro(tmp_path, "train", *by_hand, "method.sparsity=0.5")
    assert answer.returncode == 0, answer.stderr
    assert "done: runs/by_hand/deit_tiny/svite-50/smoke/seed0-" in answer.stdout
    assert "density: 0.5" in answer.stdout or "density: 0.49" in answer.stdout
    answer = repro(tmp_path, "train", "-m", *by_hand, "method.sparsity=0.5,0.9")
    assert answer.returncode == 0, answer.stderr
    assert len(list((tmp_path / "runs" / "by_hand" / "deit_tiny").glob("svite-*/smoke/*/result.json"))) == 2


def test_list_and_plan(tmp_path: Path) -> None:
    rows = json.loads(repro(tmp_path, "list", "table1", "--json").stdout)
    assert len(rows) == len(load_table("table1").rows)
    plan = json.loads(repro(tmp_path, "plan", "table1", "grid", "--json").stdout)
    assert len({entry["row"] for entry in plan}) == 75
    assert not (tmp_path / "runs").exists()

"""The mirror with the real client: offline files read back by the client's own reader, and a client that fails."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wandb

from repro.config import Config, compose
from repro.rows import load_table
from repro.runs.record import Record, record_for
from repro.tracking.open import open_sinks
from repro.tracking.wandb_mirror import WandbMirror, offline_runs, run_id, tags

ROW = load_table("table1").select(["deit_small/svite_plus-5-50"])[0]
SUMMARY = {"top1_last_pct": 77.0, "top1_best_pct": 78.5, "updates": 8}


def new_record(folder: Path, *overrides: str) -> tuple[Record, Config]:
    config = compose([*ROW.overrides, "scale=smoke", *overrides])
    record = record_for(folder, config, "table1", ROW.id)
    record.create(config, "table1", ROW.id)
    return record, config


def read_back(run: Path) -> dict[str, Any]:
    """What `wandb leet` reads from an offline run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(run)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(answer.stdout))


def write_run(record: Record, config: Config, updates: range) -> None:
    sinks = open_sinks(record, config, is_first=True)
    for update in updates:
        sinks.write({"kind": "train", "update": update, "loss": 2.0 / update, "learning_rate": 0.001})
    sinks.write({"kind": "eval", "update": updates[-1], "top1_pct": 77.0})
    sinks.close(SUMMARY)


def test_offline_run_holds_what_the_record_holds(tmp_path: Path) -> None:
    record, config = new_record(tmp_path / "runs with space")
    write_run(record, config, range(1, 9))
    (segment,) = offline_runs(record.path)
    seen = read_back(segment)
    text = json.dumps(seen)
    assert run_id(config.signature, "table1", ROW.id) in text
    summary = seen["summary"]
    assert summary["train/loss"] == pytest.approx(0.25)
    assert summary["eval/top1_pct"] == 77.0
    assert summary["published/top1_pct"] == 80.18
    assert summary["published/flops_saving_pct"] == 49.32
    # At another scale than the paper's an accuracy has another name, and no difference to the published one.
    assert summary["local_top1_best_pct"] == 78.5
    assert not [name for name in summary if name.startswith(("top1_", "delta/"))]
    assert [entry["loss"] for entry in record.metrics() if entry["kind"] == "train"] == [2.0 / n for n in range(1, 9)]


def test_two_attempts_are_two_segments_of_one_run(tmp_path: Path) -> None:
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 5))
    begun = int(time.time())
    while int(time.time()) == begun:  # the client names a segment by the second
        time.sleep(0.02)
    write_run(record, config, range(5, 9))
    segments = offline_runs(record.path)
    assert len(segments) == 2
    assert len({segment.name.split("-", 3)[-1] for segment in segments}) == 1


def test_paper_scale_says_the_difference_to_the_published_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, config = new_record(tmp_path, "scale=paper", "data.root=somewhere")
    mirror = WandbMirror(record, config)
    mirror.close({"top1_last_pct": 80.0, "top1_best_pct": 80.28})
    summary = read_back(offline_runs(record.path)[0])["summary"]
    assert summary["delta/top1_pct"] == pytest.approx(0.1)
    assert summary["top1_best_pct"] == 80.28


def test_tags() -> None:
    config = compose(ROW.overrides)
    assert tags("table1", config) == [
        "table1", "svite_plus", "deit_small", "sparsity=0.5", "data_sparsity=0.05", "scale=local",
    ]  # fmt: skip


def test_a_server_that_cannot_be_reached_leaves_offline_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:  # bound and not listening: connections are refused at once
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        record, config = new_record(tmp_path)
        write_run(record, config, range(1, 9))
    assert "W&B cannot be reached" in capsys.readouterr().err
    assert read_back(offline_runs(record.path)[0])["summary"]["train/loss"] == pytest.approx(0.25)
    everything = b"".join(path.read_bytes() for path in record.path.rglob("*") if path.is_file())
    assert b"0123456789" * 4 not in everything


def test_a_client_that_fails_never_stops_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.CommError("no server")

    monkeypatch.setattr(wandb, "init", refuse)
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 9))
    assert capsys.readouterr().err.count("W&B mirror is behind (CommError: no server)") == 1
    assert len(list(record.metrics())) == 9


def test_no_mirror_means_no_folder(tmp_path: Path) -> None:
    record, config = new_record(tmp_path, "tracker=none")
    write_run(record, config, range(1, 3))
    assert not (record.path / "wandb").exists()

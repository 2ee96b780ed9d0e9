"""Records with a mirror, and the mirror read back by the client's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import Server

from repro.cli import main
from repro.composition import compose
from repro.config import Config
from repro.paper_tables import load_table
from repro.runs.files import write_json
from repro.runs.record import Record, record_for
from repro.tracking.open import open_sinks
from repro.tracking.sinks import Sinks

ROW = load_table("table1").select(["deit_small/svite_plus-5-50"])[0]


def new_record(folder: Path, *overrides: str) -> tuple[Record, Config]:
    """A record as a launch leaves it, with the provenance of an attempt."""
    config = compose([*ROW.overrides, "scale=smoke", *overrides])
    record = record_for(folder, config, "table1", ROW.id)
    record.create(config, "table1", ROW.id)
    write_json(record.path / "provenance.json", {"commit": "c0ffee" * 6 + "c0de", "versions": {"torch": "2.8.0"}})
    (record.path / "requirements.txt").write_text("torch==2.8.0+node\n")
    record.set_status(record.status().moved("requeued", attempt=1))
    return record, config


def result_of_run(config: Config, **changes: Any) -> dict[str, Any]:
    """What a finished run leaves in result.json."""
    return {
        "schema": 1, "table": "table1", "row": ROW.id, "scale": config.scale.name, "seed": config.seed,
        "signature": config.signature, "dataset": config.data.name, "updates": 8, "top1_last_pct": 77.0,
        "top1_ema_last_pct": None, "top1_best_pct": 78.5, "loss_last": 0.123456789012345, "wall_s": 1.5, **changes,
    }  # fmt: skip


def train_entry(update: int) -> dict[str, Any]:
    """A line as the loop writes it."""
    return {
        "kind": "train", "update": update, "epoch": update / 4, "loss": 2.0 / update, "learning_rate": 0.001,
        "density": 0.5, "churn": 0.1, "token_keep_rate": 0.9, "step_time_ms": 10.0, "images_per_s": 6400.0,
        "loader_share_pct": 4.0,
    }  # fmt: skip


def eval_entry(update: int) -> dict[str, Any]:
    """An evaluation as the loop writes it."""
    return {
        "kind": "eval", "update": update, "epoch": update // 4, "top1_pct": 77.0, "top5_pct": 90.0, "eval_loss": 0.5,
        "top1_ema_pct": 50.0, "top5_ema_pct": 70.0,
    }  # fmt: skip


def write_run_into(sinks: Sinks, updates: range) -> None:
    """One attempt's entries, an evaluation after the last update."""
    for update in updates:
        sinks.write(train_entry(update))
    sinks.write(eval_entry(updates[-1]))


def write_run(record: Record, config: Config, updates: range, finished: bool = True) -> None:
    """One attempt's entries through the sinks, an evaluation after the last update."""
    sinks = open_sinks(record, config, is_first=True)
    write_run_into(sinks, updates)
    result = result_of_run(config) if finished else None
    if result is not None:
        write_json(record.path / "result.json", result)
        record.set_status(record.status().moved("done"))
    sinks.close(result)


def read_back(segment: Path) -> dict[str, Any]:
    """What `wandb leet` reads from an offline segment."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(segment)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(answer.stdout))


def history_of(segment: Path) -> list[dict[str, Any]]:
    """Every line of an offline segment's history, as `wandb leet` reads it."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(segment)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    records = [json.loads(line) for line in answer.stdout.splitlines()]
    return [record for record in records if record["type"] == "history"]


def bytes_below(folder: Path) -> bytes:
    """Every file's content."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def repro(*words: str) -> int:
    """The exit code of `repro wandb ...`."""
    with pytest.raises(SystemExit) as ended:
        main(["wandb", *words])
    return int(ended.value.code or 0)


def use(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Make it the client's server, with a key."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def finished(root: Path, *overrides: str) -> Record:
    """A finished run whose machine had no network."""
    record, config = new_record(root, "tracker=none", *overrides)
    write_run(record, config, range(1, 9))
    return record

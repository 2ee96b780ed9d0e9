"""Helpers for records with a mirror, and for reading the mirror with the client's own reader."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from loopback import Server

from repro.cli.main import main
from repro.config import Config
from repro.config.compose import compose
from repro.files import write_json
from repro.runs.record import Record, record_for
from repro.tables.loader import load_table
from repro.tracking.client import reset_client
from repro.tracking.sinks import JsonlSink, Sinks, open_sinks
from repro.tracking.wandb_mirror import WandbMirror
from repro.tracking.wandb_run import Timeouts

ROW = load_table("table1").select(["deit_small/svite_plus-5-50"])[0]


def new_record(folder: Path, *overrides: str) -> tuple[Record, Config]:
    """Return a record as created by a launch, with the provenance of an attempt."""
    config = compose([*ROW.overrides, "scale=smoke", *overrides])
    record = record_for(folder, config, "table1", ROW.id)
    record.create(config, "table1", ROW.id)
    write_json(record.path / "provenance.json", {"commit": "c0ffee" * 6 + "c0de", "versions": {"torch": "2.8.0"}})
    (record.path / "requirements.txt").write_text("torch==2.8.0+node\n")
    record.set_status(record.status().moved("requeued", attempt=1))
    return record, config


def result_of_run(config: Config, **changes: Any) -> dict[str, Any]:
    """Return the content of result.json of a finished run."""
    return {
        "schema": 1, "table": "table1", "row": ROW.id, "scale": config.scale.name, "seed": config.seed,
        "signature": config.signature, "dataset": config.data.name, "updates": 8, "top1_last_pct": 77.0,
        "top1_ema_last_pct": None, "top1_best_pct": 78.5, "loss_last": 0.123456789012345, "wall_s": 1.5,
        "params_m": 22.1, "macs_g": 2.34, "flops_saving_pct": 49.24, "flops_saving_alt_pct": None, **changes,
    }  # fmt: skip


def train_entry(update: int) -> dict[str, Any]:
    """Return a training entry as written by the training loop."""
    return {
        "kind": "train", "update": update, "epoch": update / 4, "loss": 2.0 / update, "learning_rate": 0.001,
        "density": 0.5, "churn": 0.1, "token_keep_rate": 0.9, "step_time_ms": 10.0, "images_per_s": 6400.0,
        "loader_share_pct": 4.0,
    }  # fmt: skip


def eval_entry(update: int) -> dict[str, Any]:
    """Return an evaluation entry as written by the training loop."""
    return {
        "kind": "eval", "update": update, "epoch": update // 4, "top1_pct": 77.0, "top5_pct": 90.0, "eval_loss": 0.5,
        "top1_ema_pct": 50.0, "top5_ema_pct": 70.0,
    }  # fmt: skip


def write_run_into(sinks: Sinks, updates: range) -> None:
    """Write the entries of one attempt, with an evaluation after the last update."""
    for update in updates:
        sinks.write(train_entry(update))
    sinks.write(eval_entry(updates[-1]))


def open_with(record: Record, config: Config, timeouts: Timeouts | None = None) -> Sinks:
    """Open the sinks of an attempt, with `timeouts` for the mirror instead of the config's."""
    if timeouts is None:
        return open_sinks(record, config, is_first=True)
    return Sinks([JsonlSink(record.metrics_file), WandbMirror(record, config, timeouts)])


def write_run(
    record: Record, config: Config, updates: range, finished: bool = True, timeouts: Timeouts | None = None
) -> None:
    """Write the entries of one attempt through the sinks, with an evaluation after the last update."""
    sinks = open_with(record, config, timeouts)
    write_run_into(sinks, updates)
    result = result_of_run(config) if finished else None
    if result is not None:
        write_json(record.path / "result.json", result)
        record.set_status(record.status().moved("done"))
    sinks.close(result)


def offline_segments(record: Path) -> list[Path]:
    """Return the folders of offline files of a run's attempts, oldest first."""
    return sorted((record / "wandb").glob("offline-run-*"))


def read_back(record: Record) -> dict[str, Any]:
    """Return what `wandb leet` reads from the latest offline files of a record."""
    segment = offline_segments(record.path)[-1]
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(segment)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(answer.stdout))


def history_of(segment: Path) -> list[dict[str, Any]]:
    """Return all lines of an offline segment's history, as `wandb leet` reads them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(segment)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    records = [json.loads(line) for line in answer.stdout.splitlines()]
    return [record for record in records if record["type"] == "history"]


def bytes_below(folder: Path) -> bytes:
    """Return the concatenated contents of all files."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def repro(*words: str) -> int:
    """Run `repro wandb ...` and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["wandb", *words])
    return int(ended.value.code or 0)


def use(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Configure the client to use this server, with a key."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def restart_client() -> None:
    """Reset the client's settings and runs, as in a new process."""
    with warnings.catch_warnings():  # the client does not wait for its service process to exit
        warnings.simplefilter("ignore", ResourceWarning)
        reset_client()
        gc.collect()


def finished(root: Path, *overrides: str) -> Record:
    """Return a finished run from a machine without network."""
    record, config = new_record(root, "tracker=none", *overrides)
    write_run(record, config, range(1, 9))
    return record

"""Runs killed at random moments lose nothing and change no result."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest
import torch

from repro.config.compose import compose
from repro.launch.local_run import preloads, run_rank
from repro.runs.record import Record, record_for
from repro.tables.loader import load_table

WALL_CLOCK = ("step_time_ms", "images_per_s", "loader_share_pct", "wall_s")
KILLS = 10
UPDATES = 240
ROW = load_table("table1").select(["deit_tiny/s2vite-30"])[0]


def new_record(root: Path) -> Record:
    # 4 updates an epoch; a checkpoint every 0.05 s, so that many a kill falls into the writing of one.
    often = ("run.checkpoint_every_s=0.05", "run.log_every_updates=1")
    config = compose([*ROW.overrides, "scale=smoke", "tracker=none", f"recipe.epochs={UPDATES // 4}", *often])
    record = record_for(root, config, "table1", ROW.id)
    record.create(config, "table1", ROW.id)
    return record


def attempt(record: Record, kill_at: int | None, delay_s: float = 0.0) -> int | None:
    """One process of the run, killed `delay_s` after it has written of update `kill_at`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloads(record.config()))
    process = context.Process(target=run_rank, args=(record.path, record.claim_attempt(), {}, dict(os.environ)))
    process.start()
    while kill_at is not None and process.is_alive() and updates_written(record) < kill_at:
        process.join(0.005)
    process.join(None if kill_at is None else delay_s)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def updates_written(record: Record) -> int:
    """The largest update that the metrics speak of."""
    return max((entry["update"] for entry in record.metrics("train")), default=0)


def outcome(record: Record) -> tuple[object, object]:
    result = {key: value for key, value in (record.result() or {}).items() if key not in WALL_CLOCK}
    metrics = [{key: value for key, value in line.items() if key not in WALL_CLOCK} for line in record.metrics()]
    return result, metrics


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    undisturbed = new_record(tmp_path / "undisturbed")
    assert attempt(undisturbed, None) == 0
    killed = new_record(tmp_path / "killed")
    moments = random.Random(0)
    for kill in range(KILLS):
        # Before the first update, then further and further; each at a random moment of an update or a checkpoint.
        code = attempt(killed, kill * UPDATES // (2 * KILLS), moments.uniform(0.0, 0.15))
        assert code == -signal.SIGKILL
        assert killed.result() is None
    assert attempt(killed, None) == 0
    assert killed.status().state == "done"
    attempts = killed.status().attempt
    assert attempts == KILLS + 1
    assert outcome(killed) == outcome(undisturbed)
    last = [torch.load(max(r.checkpoint_dir.glob("update-*.pt")), weights_only=True) for r in (killed, undisturbed)]
    for name, tensor in last[1]["model"].items():
        assert torch.equal(tensor, last[0]["model"][name]), name
    assert attempt(killed, None) == 0  # a done run is left alone
    assert killed.status().attempt == attempts

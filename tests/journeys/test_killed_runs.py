"""Runs killed at random moments lose nothing and change no result."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import pytest
import torch

from repro.config import compose
from repro.launch.inline import execute_in_child
from repro.rows import load_table
from repro.runs.record import Record, record_for

WALL_CLOCK = ("step_time_ms", "images_per_s", "wall_s")
KILLS = 10
ROW = load_table("table1").select(["deit_tiny/s2vite-30"])[0]


def new_record(root: Path) -> Record:
    # 4 updates an epoch, 30 epochs; a checkpoint every 0.05 s, so that many a kill falls into the writing of one.
    config = compose([*ROW.overrides, "scale=smoke", "tracker=none", "recipe.epochs=30", "run.checkpoint_every_s=0.05"])
    record = record_for(root, config, "table1", ROW.id)
    record.create(config, "table1", ROW.id)
    return record


def attempt(record: Record, kill_after_s: float | None) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["repro.launch.preload"])
    process = context.Process(target=execute_in_child, args=(record.path,))
    process.start()
    process.join(kill_after_s)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def outcome(record: Record) -> tuple[object, object]:
    result = {key: value for key, value in (record.result() or {}).items() if key not in WALL_CLOCK}
    metrics = [{key: value for key, value in line.items() if key not in WALL_CLOCK} for line in record.metrics()]
    return result, metrics


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    undisturbed = new_record(tmp_path / "undisturbed")
    assert attempt(undisturbed, None) == 0
    wall_s = float((undisturbed.result() or {})["wall_s"])
    killed = new_record(tmp_path / "killed")
    moments = random.Random(0)
    kills = 0
    while kills < KILLS:
        # Early ones too: before the first checkpoint, while data are read. Progress is made over the attempts.
        if attempt(killed, moments.uniform(0.02, 0.3) * max(wall_s, 2.0)) == 0:
            break
        kills += 1
        assert killed.result() is None
    assert kills == KILLS, "the run ended before it was killed often enough: make it longer"
    assert attempt(killed, None) == 0
    assert killed.status().state == "done"
    assert killed.status().attempt == KILLS + 1
    assert outcome(killed) == outcome(undisturbed)
    last = [torch.load(max(r.checkpoint_dir.glob("update-*.pt")), weights_only=True) for r in (killed, undisturbed)]
    for name, tensor in last[1]["model"].items():
        assert torch.equal(tensor, last[0]["model"][name]), name
    assert attempt(killed, None) == 0  # a done run is left alone
    assert killed.status().attempt == KILLS + 1

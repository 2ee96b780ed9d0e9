"""What the W&B mirror costs a run: when it starts, and for each entry. Offline, as without an account."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Figure, milliseconds
from repro.composition import compose
from repro.config import Config
from repro.runs.record import Record, record_for
from repro.tracking.open import open_sinks

ROUNDS = 5
UPDATES = 1200
LONGEST_START_S = 1.0
MOST_OF_A_STEP = 0.005
# The smallest model of table 1 at local scale on one thread, batch 64; every other step is longer.
STEP_S = 0.016
# As SViTE's rows move their masks at that scale: each move is an entry with the density of every layer.
MASKS_EVERY_UPDATES = 3
LAYERS = 18


def mirror() -> list[Figure]:
    """Start-up and logging with the mirror, against a record without one."""
    with tempfile.TemporaryDirectory() as folder:
        starts = [_start_s(Path(folder) / str(number)) for number in range(ROUNDS + 1)][1:]
        with_mirror = _logging(Path(folder) / "with", "tracker.mode=offline")
        without = _logging(Path(folder) / "without", "tracker=none")
    training_s = STEP_S * UPDATES
    waited = (with_mirror["loop_s"] - without["loop_s"]) / training_s
    worked = (with_mirror["cpu_s"] - without["cpu_s"]) / training_s
    per_entry_ms = 1000 * (with_mirror["cpu_s"] - without["cpu_s"]) / with_mirror["entries"]
    start = statistics.median(starts)
    return [
        Figure(
            "mirror: time that a run's start waits for it",
            f"at most {LONGEST_START_S:g} s",
            f"{1000 * start:.1f} ms (worst of {ROUNDS}: {1000 * max(starts):.1f} ms)",
            max(starts) <= LONGEST_START_S,
            {"starts_ms": milliseconds(starts)},
        ),
        Figure(
            "mirror: time that the loop waits for its entries",
            f"at most {100 * MOST_OF_A_STEP:g} % of a step of {1000 * STEP_S:g} ms",
            f"{100 * waited:.3f} %",
            waited <= MOST_OF_A_STEP,
            {"with": with_mirror, "without": without},
        ),
        Figure(
            "mirror: processor time of its thread and of the client's process",
            "none: beside the loop, on another core where there is one",
            f"{per_entry_ms:.2f} ms an entry, {100 * worked:.2f} % of one core at that step",
            None,
            {"with": with_mirror, "without": without},
        ),
    ]


def _record(folder: Path, *overrides: str) -> tuple[Record, Config]:
    config = compose(["backbone=deit_tiny", "method=svite", *overrides])
    record = record_for(folder, config, "table1", "deit_tiny/svite-50")
    record.create(config, "table1", "deit_tiny/svite-50")
    return record, config


def _start_s(folder: Path) -> float:
    record, config = _record(folder, "tracker.mode=offline")
    started = time.perf_counter()
    sinks = open_sinks(record, config, is_first=True)
    taken = time.perf_counter() - started
    sinks.close(None)
    return taken


def _logging(folder: Path, *overrides: str) -> dict[str, float]:
    """Seconds over a training's entries, at its pace: of the loop, and of all processors that work for it."""
    record, config = _record(folder, *overrides)
    sinks = open_sinks(record, config, is_first=True)
    time.sleep(2)  # the mirror has started
    before, loop, entries = _cpu_s(), 0.0, 0
    for update in range(1, UPDATES + 1):
        time.sleep(STEP_S)
        due = [_masks(update)] if update % MASKS_EVERY_UPDATES == 0 else []
        due += [_train(update)] if update % config.run.log_every_updates == 0 else []
        for entry in due:
            started = time.perf_counter()
            sinks.write(entry)
            loop += time.perf_counter() - started
        entries += len(due)
    time.sleep(6)  # what is left of the mirror's last batch
    worked = _cpu_s() - before
    sinks.close(None)
    return {"loop_s": loop, "cpu_s": worked, "entries": entries}


def _cpu_s() -> float:
    """Processor seconds of this process and its children so far."""
    processes = [psutil.Process(os.getpid()), *psutil.Process(os.getpid()).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _masks(update: int) -> dict[str, Any]:
    layers = {f"density/blocks.{number}.layer": 0.5 for number in range(LAYERS)}
    return {"kind": "masks", "update": update, "churn": 0.1, "density": 0.5, "ever_active": 0.7, **layers}


def _train(update: int) -> dict[str, Any]:
    return {
        "kind": "train",
        "update": update,
        "epoch": update / 22,
        "loss": 2.0 / update,
        "learning_rate": 0.001,
        "density": 0.5,
        "ever_active": 0.7,
        "churn": 0.1,
        "mask_updates": 3.0,
        "step_time_ms": 16.0,
        "images_per_s": 4000.0,
    }

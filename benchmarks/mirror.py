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
ENTRIES = 1000
PACE_S = 0.002  # entries come faster than in any training, but not at once
LONGEST_START_S = 1.0
MOST_OF_A_STEP = 0.005
# The smallest model of table 1 at local scale on one thread, batch 64; every other step is longer.
STEP_S = 0.016


def mirror() -> list[Figure]:
    """Start-up and logging with the mirror, against a record without one."""
    with tempfile.TemporaryDirectory() as folder:
        starts = [_start_s(Path(folder) / str(number)) for number in range(ROUNDS + 1)][1:]
        with_mirror = _logging(Path(folder) / "with", "tracker.mode=offline")
        without = _logging(Path(folder) / "without", "tracker=none")
    interval_s = STEP_S * compose([]).run.log_every_updates
    waited = (with_mirror["loop_s"] - without["loop_s"]) / interval_s
    worked = (with_mirror["cpu_s"] - without["cpu_s"]) / interval_s
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
            "mirror: time that the loop waits for an entry",
            f"at most {100 * MOST_OF_A_STEP:g} % of a step of {1000 * STEP_S:g} ms",
            f"{100 * waited:.3f} %",
            waited <= MOST_OF_A_STEP,
            {"with": with_mirror, "without": without},
        ),
        Figure(
            "mirror: processor time of its thread and of the client's process for an entry",
            "none: beside the loop, on another core where there is one",
            f"{1000 * (with_mirror['cpu_s'] - without['cpu_s']):.2f} ms, {100 * worked:.2f} % of one core at that step",
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
    """Seconds for one entry: of the loop, and of all processors that work for it."""
    sinks = open_sinks(*_record(folder, *overrides), is_first=True)
    time.sleep(2)  # the mirror has started
    before, loop = _cpu_s(), 0.0
    for update in range(10, 10 * ENTRIES + 1, 10):
        entry = _entry(update)
        started = time.perf_counter()
        sinks.write(entry)
        loop += time.perf_counter() - started
        time.sleep(PACE_S)
    time.sleep(1)
    worked = _cpu_s() - before
    sinks.close(None)
    return {"loop_s": loop / ENTRIES, "cpu_s": worked / ENTRIES}


def _cpu_s() -> float:
    """Processor seconds of this process and its children so far."""
    processes = [psutil.Process(os.getpid()), *psutil.Process(os.getpid()).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _entry(update: int) -> dict[str, Any]:
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

"""The cost of the W&B mirror for a run, at its start and during training, offline.

Each measurement runs in a new process, as each run does, because the first use of the client is the slow one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Figure
from repro.config.compose import compose
from repro.runs.record import Record, record_for
from repro.tracking.sinks import open_sinks
from repro.training import attempt as task
from repro.training.loop import Trainer

STARTS = 5
TRAININGS = 4  # even, so that each of the two goes first equally often
LONGEST_START_S = 1.0
MOST_OF_A_STEP = 0.005
# The smallest model of table 1 at local scale, whose step is the shortest; its masks change every few steps, and each
# change writes an entry with the density of every layer.
ROW = "deit_tiny/svite-30"
OVERRIDES = ("backbone=deit_tiny", "method=svite", "method.sparsity=0.3", "scale=local", "recipe.epochs=60")
STARTED_AT = 200  # updates after which the client has long started; the time before counts as start-up
MIRRORED, ALONE = "tracker.mode=offline", "tracker=none"


def mirror() -> list[Figure]:
    """Time start-up, and training with the mirror in turn with training without it."""
    _child("train", ALONE)  # code and data are in the page cache from here on, as for the second row of a table
    opened = [_child("start", MIRRORED)["start_s"] for _ in range(STARTS)]
    pairs = [_pair(mirrored_first=number % 2 == 0) for number in range(TRAININGS)]
    later = [mirrored["start_s"] - alone["start_s"] for mirrored, alone in pairs]
    added = statistics.median(opened) + statistics.median(later)
    slower = [mirrored["train_s"] / alone["train_s"] - 1 for mirrored, alone in pairs]
    waited = [mirrored["writing_s"] / mirrored["train_s"] for mirrored, _ in pairs]
    worked = [mirrored["cpu_s"] - alone["cpu_s"] for mirrored, alone in pairs]
    steps = f"a training whose step takes {pairs[0][1]['step_ms']:.1f} ms"
    details = {
        "opened_s": [round(value, 3) for value in opened],
        "mirrored": [mirrored for mirrored, _ in pairs],
        "alone": [alone for _, alone in pairs],
    }
    return [
        Figure(
            f"mirror: what it adds to a run's start: opening, and the first {STARTED_AT} updates beside its start-up",
            f"at most {LONGEST_START_S:g} s",
            f"{added:.2f} s ({statistics.median(opened):.2f} s of it opening)",
            added <= LONGEST_START_S,
            details,
        ),
        Figure(
            f"mirror: time that the loop waits to hand over its entries, {steps}",
            f"at most {100 * MOST_OF_A_STEP:g} %",
            f"{100 * statistics.median(waited):.3f} %",
            statistics.median(waited) <= MOST_OF_A_STEP,
            details,
        ),
        Figure(
            f"mirror: how much longer {steps} takes beside it, median of {TRAININGS} pairs in turn",
            f"at most {100 * MOST_OF_A_STEP:g} %",
            f"{100 * statistics.median(slower):+.2f} % (from {100 * min(slower):+.2f} to {100 * max(slower):+.2f} %)",
            statistics.median(slower) <= MOST_OF_A_STEP,
            details,
        ),
        Figure(
            "mirror: processor time of its thread and of the client's process",
            "none: beside the loop, on another core where there is one",
            f"{1000 * statistics.median(worked) / pairs[0][0]['entries']:.2f} ms an entry, "
            f"{100 * statistics.median(worked) / pairs[0][0]['train_s']:.1f} % of one core",
            None,
            details,
        ),
    ]


def _pair(mirrored_first: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Train with the mirror and without it."""
    if mirrored_first:
        return _child("train", MIRRORED), _child("train", ALONE)
    alone = _child("train", ALONE)
    return _child("train", MIRRORED), alone


def _child(what: str, tracker: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.mirror", what, tracker]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _record(folder: Path, tracker: str) -> Record:
    config = compose([*OVERRIDES, tracker])
    record = record_for(folder, config, "table1", ROW)
    record.create(config, "table1", ROW)
    return record


def start(folder: Path, tracker: str) -> dict[str, float]:
    """Run in a child process: open the sinks of a run after all imports that training needs."""
    record = _record(folder, tracker)
    started = time.perf_counter()
    sinks = open_sinks(record, record.config(), is_first=True)
    taken = time.perf_counter() - started
    sinks.close(None)
    return {"start_s": taken}


def train(folder: Path, tracker: str) -> dict[str, float]:
    """Run in a child process: run a whole job; time only its loop."""
    record = _record(folder, tracker)
    seen = {"writing_s": 0.0, "entries": 0.0}
    since = [0.0, 0.0]  # wall time and CPU time at which the client had started
    run = Trainer.run

    def timed(trainer: Trainer) -> dict[str, float | None]:
        sink = trainer.context.sink
        write = sink.write

        def writing(entry: Any) -> None:
            began = time.perf_counter()
            write(entry)
            if since[0]:
                seen["writing_s"] += time.perf_counter() - began
                seen["entries"] += 1
            elif entry["update"] >= STARTED_AT:
                since[:] = [time.perf_counter(), _cpu_s()]

        sink.write = writing  # type: ignore[method-assign]
        started = time.perf_counter()
        cells = run(trainer)
        seen["start_s"] = since[0] - started
        seen["train_s"] = time.perf_counter() - since[0]
        seen["cpu_s"] = _cpu_s() - since[1]
        seen["step_ms"] = 1000 * seen["train_s"] / (trainer.length.updates - STARTED_AT)
        return cells

    Trainer.run = timed  # type: ignore[method-assign]
    if task.execute(record.path, log=lambda _: None) != task.EXIT_DONE:
        raise SystemExit("the training did not finish")
    return {name: round(value, 4) for name, value in seen.items()}


def _cpu_s() -> float:
    """Return the CPU time of this process and its children in seconds."""
    this = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in [this, *this.children(recursive=True)])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps({"start": start, "train": train}[sys.argv[1]](Path(place), sys.argv[2])))

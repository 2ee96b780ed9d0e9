"""The cost of planning 1,000 runs, of reading 10,000 records, and of starting two commands from the shell.

Targets apply to CPU time (user and system, children included), which other processes affect least; wall time is shown
next to it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.figures import Figure
from repro.launch.cost_estimate import estimates, published_throughput
from repro.launch.decide import decide
from repro.launch.plan import PlannedRun, plan
from repro.launch.print_plan import print_plan
from repro.launch.queue import Queue
from repro.launch.slurm import Job
from repro.launch.status import run_statuses
from repro.launch.status_table import status_table
from repro.runs.record import all_records
from repro.runs.status import Status
from repro.tables.loader import load_table

RUNS, RUNS_AT_MOST_S = 1000, 1.0
COUNTS, RECORDS_AT_MOST_S = (1000, 3000, 10_000), 5.0
MOST_GROWTH = 1.5  # of the time per record, from the fewest to the most: 1 is linear, 10 is quadratic
COMMANDS, COMMAND_AT_MOST_S, ROUNDS = (("--help",), ("list",)), 0.4, 5
NO_JOBS = Queue({}, {}, 0.0)
STATES = ("done", "running", "submitted", "failed", "planned")


def launching() -> list[Figure]:
    """Return all figures of this module."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_thousand_runs(Path(folder) / "thousand"), *_many_records(Path(folder)), *_commands()]


def _planned(count: int, root: Path) -> list[PlannedRun]:
    table = load_table("table1")
    runs = plan(table, table.rows, "smoke", range(-(-count // len(table.rows))), root)
    return runs[:count]


def _thousand_runs(root: Path) -> list[Figure]:
    silent = Console(file=open(os.devnull, "w", encoding="utf-8"), width=150)  # noqa: SIM115
    _planned(1, root)  # start-up: imports, and files that are read once

    def show_plan() -> None:
        runs = _planned(RUNS, root)
        print_plan("table1", decide(runs, NO_JOBS, False, 5), estimates(runs, published_throughput, None), silent)

    runs = _planned(RUNS, root)
    _write_records(runs)
    jobs = {str(n): Job(str(n), "repro-table1-0", "PENDING", "Priority", "") for n in range(RUNS)}
    queue = Queue(jobs, {}, time.time())

    def show_status() -> None:
        silent.print(status_table("table1", run_statuses(_planned(RUNS, root), queue)))

    found = []
    for name, action in (("planning", show_plan), ("the status of", show_status)):
        worked, waited = _costs_s(action, ROUNDS)
        found.append(
            Figure(
                f"launching: {name} {RUNS:,} runs, after start-up",
                f"at most {RUNS_AT_MOST_S:g} s",
                f"{worked:.2f} s ({waited:.2f} s by the clock)",
                worked <= RUNS_AT_MOST_S,
                {"cpu_s": worked, "clock_s": waited, "rounds": ROUNDS},
            )
        )
    return found


def _many_records(folder: Path) -> list[Figure]:
    """Time planning, reading and `repro status` over as many runs as there are records, and a walk over the folder."""
    silent = Console(file=open(os.devnull, "w", encoding="utf-8"), width=150)  # noqa: SIM115
    taken: dict[str, list[tuple[float, float]]] = {"status": [], "walk": []}
    for count in COUNTS:
        root = folder / str(count)
        _write_records(_planned(count, root))
        actions = {
            "status": lambda: silent.print(status_table("table1", run_statuses(_planned(count, root), NO_JOBS))),  # noqa: B023
            "walk": lambda: [record.status() for record in all_records(root)],  # noqa: B023
        }
        for name, action in actions.items():
            taken[name].append(_costs_s(action, 1))
    found = []
    for name, text in (("status", "repro status lists"), ("walk", "a walk over the folder lists")):
        worked = [seconds for seconds, _ in taken[name]]
        growth = (worked[-1] / COUNTS[-1]) / (worked[0] / COUNTS[0])
        counts = ", ".join(f"{count:,}: {seconds:.2f} s" for count, seconds in zip(COUNTS, worked, strict=True))
        found.append(
            Figure(
                f"launching: {text} {COUNTS[-1]:,} records",
                f"at most {RECORDS_AT_MOST_S:g} s, linear",
                f"{counts}; {taken[name][-1][1]:.2f} s wall time; time per record grows {growth:.2f} times",
                worked[-1] <= RECORDS_AT_MOST_S and growth <= MOST_GROWTH,
                {"counts": COUNTS, "cpu_and_clock_s": taken[name]},
            )
        )
    return found


def _commands() -> list[Figure]:
    found = []
    for words in COMMANDS:
        worked, waited = _costs_s(lambda: _run(words), ROUNDS)  # noqa: B023
        found.append(
            Figure(
                f"launching: repro {' '.join(words)}",
                f"at most {COMMAND_AT_MOST_S:g} s",
                f"{worked:.2f} s ({waited:.2f} s by the clock)",
                worked <= COMMAND_AT_MOST_S,
                {"cpu_s": worked, "clock_s": waited, "rounds": ROUNDS},
            )
        )
    return found


def _run(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "repro", *words], stdout=subprocess.DEVNULL, check=True)


def _costs_s(action: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the median CPU time and wall time in seconds."""
    worked, waited = [], []
    for _ in range(rounds):
        cpu, clock = _cpu_s(), time.perf_counter()
        action()
        worked.append(_cpu_s() - cpu)
        waited.append(time.perf_counter() - clock)
    return statistics.median(worked), statistics.median(waited)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _write_records(runs: Sequence[PlannedRun]) -> None:
    """Write only what a listing reads of records in every state; ten thousand real, fsynced records take minutes."""
    now = time.time()
    for number, run in enumerate(runs):
        state = STATES[number % len(STATES)]
        status = Status(
            state,  # type: ignore[arg-type]
            heartbeat=now,
            attempt=1,
            update=number % 100,
            updates=100,
            job_id=str(number),
            host="node-1",
            started=now - 60,
            reason="the loss is not finite" if state == "failed" else None,
            loss=1.5,
        )
        run.record.path.mkdir(parents=True)
        (run.record.path / "config.yaml").write_text(f"table: table1\nrow: {run.row.id}\n", encoding="utf-8")
        (run.record.path / "status.json").write_text(json.dumps(status.as_json()), encoding="utf-8")
        if state == "done":
            (run.record.path / "result.json").write_text('{"top1_last_pct": 50.0}', encoding="utf-8")

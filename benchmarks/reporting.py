"""The time of a report on 1,000 and on 10,000 finished runs of table 1, with their curves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from repro.config.compose import compose
from repro.files import write_json
from repro.runs.provenance import REPOSITORY, collect
from repro.runs.record import record_for
from repro.runs.status import Status
from repro.tables.loader import load_table
from repro.tables.rows import Row, Table

SCALE = "local"
TARGETS_S = {1_000: 6.0, 10_000: 30.0}
REPORTS = 5
# As long as those of a local SViTE run: 6 epochs of 89 updates, masks changed in every fifth.
EPOCHS, PER_EPOCH = 6, 89
EVALUATIONS, TRAIN_LINES, MASK_LINES, LAYERS = 3, 59, 86, 14


def reporting() -> list[Figure]:
    """Time `repro report` without existing figures for each number of records, and the ratio of the two."""
    found = {number: _report_s(number) for number in TARGETS_S}
    few, many = found
    ratio = found[many]["cpu_s"] / found[few]["cpu_s"]
    figures = [
        Figure(
            f"report: {number:,} records",
            f"at most {TARGETS_S[number]:g} s",
            f"{seconds['wall_s']:.1f} s, {seconds['cpu_s']:.1f} s of processor time",
            seconds["wall_s"] <= TARGETS_S[number],
            seconds,
        )
        for number, seconds in found.items()
    ]
    linear = Figure(
        f"report: {many:,} records against {few:,}",
        f"at most {many // few} times (linear)",
        f"{ratio:.1f} times",
        ratio <= many / few,
        {"ratio": ratio},
    )
    return [*figures, linear]


def _report_s(number: int) -> dict[str, Any]:
    """Return the wall time and CPU time of `repro report` on `number` records, in seconds.

    Several reports are written, each into its own folder; the one with the median wall time counts.
    """
    table = load_table("table1")
    seeds = -(-number // len(table.rows))
    with tempfile.TemporaryDirectory() as folder:
        write_records(table, list(table.rows), seeds, number, Path(folder) / "runs")
        os.sync()  # real runs have been written long before, so a report does not wait for their writes to disk
        every = sorted((_one_report_s(table, seeds, Path(folder), place) for place in range(REPORTS)), key=_wall_s)
        return {**every[REPORTS // 2], "every_wall_s": [round(_wall_s(one), 2) for one in every]}


def _one_report_s(table: Table, seeds: int, folder: Path, place: int) -> dict[str, float]:
    words = ["report", table.name, "--scale", SCALE, "--seeds", str(seeds), "--reports", f"reports{place}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    wall, cpu = time.perf_counter(), _cpu_s()
    command = [sys.executable, "-m", "repro", *words]
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    return {"cpu_s": _cpu_s() - cpu, "wall_s": time.perf_counter() - wall}


def _wall_s(report: dict[str, float]) -> float:
    return report["wall_s"]


def _cpu_s() -> float:
    """Return the CPU time of finished child processes in seconds."""
    times = os.times()
    return times.children_user + times.children_system


def write_records(table: Table, rows: list[Row], seeds: int, number: int, root: Path) -> None:
    """Write `number` finished records, the first seed of all rows first. Their metrics are hard links to one file."""
    provenance = collect("none", "cpu")
    metrics = root / "metrics.jsonl"
    root.mkdir(parents=True)
    metrics.write_text("".join(json.dumps(line) + "\n" for line in _lines()), encoding="utf-8")
    configs = {row.id: compose([*row.overrides, f"scale={SCALE}"]) for row in rows}
    for place in range(min(number, seeds * len(rows))):
        row, seed = rows[place % len(rows)], place // len(rows)
        config = configs[row.id].model_copy(update={"seed": seed})
        record = record_for(root, config, table.name, row.id)
        record.create(config, table.name, row.id)
        record.set_status(Status(state="done", heartbeat=time.time(), attempt=1))
        write_json(record.path / "provenance.json", provenance)
        write_json(record.path / "result.json", _result(row, seed, config.signature))
        os.link(metrics, record.metrics_file)


def _result(row: Row, seed: int, signature: str) -> dict[str, Any]:
    accuracy = 80.0 + seed % 7 - row.arch_sparsity_pct / 20
    return {
        "schema": 1,
        "table": row.table,
        "row": row.id,
        "scale": SCALE,
        "seed": seed,
        "signature": signature,
        "dataset": "digits",
        "updates": EPOCHS * PER_EPOCH,
        "wall_s": 10.0,
        "top1_last_pct": accuracy - 0.5,
        "top1_best_pct": accuracy,
        "top1_ema_last_pct": None,
        "loss_last": 0.5,
    }


def _lines() -> list[dict[str, Any]]:
    layers = {f"density/blocks.{number // 4}.layer{number % 4}": 0.5 for number in range(LAYERS)}
    masks = [
        {"kind": "masks", "update": 5 * n, "epoch": 5 * n / PER_EPOCH, "churn": 0.1, "density": 0.5, "ever_active": 0.9}
        for n in range(MASK_LINES)
    ]
    train = [
        {"kind": "train", "update": 9 * n, "epoch": 9 * n / PER_EPOCH, "loss": 1.0, "learning_rate": 1e-3}
        for n in range(TRAIN_LINES)
    ]
    evaluations = [
        {"kind": "eval", "update": 2 * PER_EPOCH * (n + 1), "epoch": 2 * n + 2, "top1_pct": 70.0 + n, "top5_pct": 99.0}
        for n in range(EVALUATIONS)
    ]
    return [*({**line, **layers} for line in masks), *train, *evaluations]

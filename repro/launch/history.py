"""The history of a run: its attempts, and the accuracy after each evaluated epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.errors import count_of
from repro.launch.text_table import duration
from repro.runs.record import Record

MAX_EPOCHS = 10
ACCURACIES = {"top-1": "top1_pct", "top-5": "top5_pct"}


def history(record: Record, state: str) -> list[str]:
    """Describe a run in lines of text: its state, attempts, the last evaluations, and its result if it is done."""
    status = record.status()
    lines = [f"{record.path}: {state}" + (f": {status.reason}" if status.reason else "")]
    progress = f"{status.update} of {count_of(status.updates, 'update')}" if status.updates else "no update yet"
    lines.append(f"  {count_of(status.attempt, 'attempt')}, {progress}")
    for number in record.attempts():
        is_reported = number == status.attempt and status.state in ("running", "done")
        attempt = _attempt(record.attempt_dir(number), status.heartbeat if is_reported else 0.0)
        lines.append(f"  attempt {number}: {attempt}")
    evaluations = _evaluations(record)
    if len(evaluations) > MAX_EPOCHS:
        lines.append(f"  ... {count_of(len(evaluations) - MAX_EPOCHS, 'earlier evaluation')}")
    lines += [f"  {line}" for line in evaluations[-MAX_EPOCHS:]]
    result = record.result()
    return lines if result is None else [*lines, f"  {accuracies(result)}"]


def accuracies(result: Mapping[str, Any]) -> str:
    """Format the accuracies of a finished run: `top-1 79.00 % at the last epoch, 79.50 % at the best (9), digits`."""
    last, best, epoch = (result[key] for key in ("top1_last_pct", "top1_best_pct", "top1_best_epoch"))
    return f"top-1 {last:.2f} % at the last epoch, {best:.2f} % at the best ({epoch:g}), {result['dataset']}"


def _attempt(folder: Path, reported: float) -> str:
    """Format when an attempt started, how long it ran, and the id of its Slurm job.

    It ran at least until its last output and until `reported`, its last known report in Unix seconds.
    """
    files = [file.stat() for file in folder.iterdir() if file.is_file()]
    job = folder / "job"
    of_job = f", job {job.read_text(encoding='utf-8').split()[0]}" if job.is_file() else ""
    if not files:
        return f"no output{of_job}"
    start = min(file.st_ctime if file.st_size == 0 else file.st_mtime for file in [*files, folder.stat()])
    end = max(reported, *(file.st_mtime for file in files))
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start))
    return f"{clock}, {duration(end - start)}{of_job}"


def _evaluations(record: Record) -> list[str]:
    """Return a line for each evaluation: epoch, update, loss, accuracies, and training time since the previous one."""
    lines = []
    loss, spent_s, trained_to = None, 0.0, 0
    for entry in sorted(record.metrics(), key=lambda entry: (entry["update"], entry["kind"] != "train")):
        if entry["kind"] == "train":
            spent_s += (entry["update"] - trained_to) * entry.get("step_time_ms", 0.0) / 1000
            loss, trained_to = entry.get("loss"), entry["update"]
        elif entry["kind"] == "eval":
            parts = [] if loss is None else [f"loss {loss:.3f}"]
            parts += [f"{name} {entry[key]:.2f} %" for name, key in ACCURACIES.items() if entry.get(key) is not None]
            parts.append(f"{duration(spent_s)} of training")
            lines.append(f"epoch {entry['epoch']:g} (update {entry['update']}): {', '.join(parts)}")
            spent_s = 0.0
    return lines

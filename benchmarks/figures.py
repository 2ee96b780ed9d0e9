"""A measured figure and its target, and the files that a run of the benchmarks writes."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro.files import write_json, write_text
from repro.runs.provenance import collect

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Figure:
    """A measured figure with its target; `is_met` is None for a figure without one."""

    name: str
    target: str
    measured: str
    is_met: bool | None
    details: dict[str, Any]


def in_turn(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, float]]:
    """Time two actions in turn, A B A B, in seconds by `clock`, after one warm-up round."""
    pairs = []
    for number in range(rounds + 1):
        pair = (_seconds(first, clock), _seconds(second, clock))
        if number:
            pairs.append(pair)
    return pairs


def _seconds(action: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    action()
    return clock() - started


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the median of first / second over the pairs."""
    return statistics.median(first / second for first, second in pairs)


def time_per_macs(
    name: str,
    pairs: Sequence[tuple[float, float]],
    macs: tuple[float, float],
    target: float | None,
    details: Mapping[str, Any] | None = None,
    limit: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Return the time that a smaller model saves relative to the MACs that it saves.

    Args:
        pairs: seconds of the full model and of the smaller one, in turn.
        macs: MACs of the full model and of the smaller one.
        limit: seconds of the full model and of a model over as many tokens without selection, see
            `benchmarks.first_tokens`.
    """
    saved, saved_macs = _median_saving(pairs), 1 - macs[1] / macs[0]
    least = f"; limit here {_median_saving(limit) / saved_macs:.2f}" if limit else ""
    return Figure(
        f"{name}: time saved per MACs saved",
        "–" if target is None else f"at least {target:g}",
        f"{saved / saved_macs:.2f} ({100 * saved:.1f} % of the time, {100 * saved_macs:.1f} % of the MACs{least})",
        None if target is None else saved / saved_macs >= target,
        {
            "whole_ms": milliseconds([whole for whole, _ in pairs]),
            "smaller_ms": milliseconds([less for _, less in pairs]),
            **({"limit_ms": milliseconds([less for _, less in limit])} if limit else {}),
            **(details or {}),
        },
    )


def _median_saving(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(1 - less / whole for whole, less in pairs)


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """Convert seconds to milliseconds, rounded for a result file."""
    return [round(1000 * value, 3) for value in seconds]


def hardware() -> dict[str, Any]:
    """Return the machine and the software versions of the measurement."""
    about = collect("none", "cpu")
    kept = {key: about[key] for key in ("commit", "cpu", "cpu_count")}
    return {
        **kept,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def write(
    name: str, figures: Sequence[Figure], more: Mapping[str, Any] | None = None, folder: Path = RESULTS
) -> list[Path]:
    """Write `<name>.json` and `.md` with the hardware and `more` details about it; return their paths."""
    about = {**hardware(), **(more or {})}
    json_file, table = folder / f"{name}.json", folder / f"{name}.md"
    write_json(json_file, {"hardware": about, "figures": [asdict(figure) for figure in figures]})
    words = {True: "met", False: "missed", None: "–"}
    lines = ["| figure | target | measured | |", "| --- | --- | --- | --- |"]
    lines += [f"| {figure.name} | {figure.target} | {figure.measured} | {words[figure.is_met]} |" for figure in figures]
    where = "; ".join(f"{key} {value}" for key, value in about.items() if value not in (None, [], {}))
    write_text(table, "\n".join(lines) + f"\n\n{where}.\n")
    return [json_file, table]

"""A plan for the eyes: what a launch would do with each run, what it costs, and what all of it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from repro.launch.columns import columns
from repro.launch.costing import Cost, devices, total
from repro.launch.overview import duration
from repro.launch.reconcile import Decision
from repro.launch.waiting import parallelism


def print_plan(title: str, decisions: Sequence[Decision], costs: Sequence[Cost], console: Console) -> None:
    """One line a run, then the sum over those that a launch would start."""
    heads = ("row", "seed", "state", "device hours", "wall time", "energy (kWh)", "record", "a launch would")
    rows = [
        (
            each.run.row.id,
            str(each.run.config.seed),
            each.run.state,
            "unknown" if cost.device_hours is None else f"{cost.device_hours:.3g}",
            "unknown" if cost.wall_hours is None else duration(3600 * cost.wall_hours),
            "unknown" if cost.energy_kwh is None else f"{cost.energy_kwh:.2f}",
            str(each.run.record.path),
            f"{each.action}: {each.why}" if each.action != "start" else "start it",
        )
        for each, cost in zip(decisions, costs, strict=True)
    ]
    right = ("seed", "device hours", "wall time", "energy (kWh)")
    console.print(columns(heads, rows, right), soft_wrap=True)
    starting = [(each.run, cost) for each, cost in zip(decisions, costs, strict=True) if each.action == "start"]
    counts = ", ".join(f"{number} {state}" for state, number in Counter(each.run.state for each in decisions).items())
    console.print(f"{title}: {counts}; a launch would start {len(starting)}")
    if not starting:
        return
    config = starting[0][0].config
    places = parallelism(config.launcher.parallel, config.scale.cpu_threads)
    every = total([run for run, _ in starting], [cost for _, cost in starting], places)
    if every.unknown < len(starting):
        energy = "energy unknown (--watts)" if every.energy_kwh is None else f"{every.energy_kwh:.1f} kWh"
        console.print(
            f"at least {every.device_hours:.3g} device hours, {energy}; {duration(3600 * every.wall_hours)} with "
            f"{places} runs at once on {devices(config)} devices each"
        )
        console.print("of training alone: evaluation, reading images and waiting in a queue come on top")
    reasons = Counter(cost.known_from for _, cost in starting if cost.device_hours is None)
    for why, count in reasons.items():
        console.print(f"not included: {count} runs, {why}", soft_wrap=True)
    for known_from in sorted({cost.known_from for _, cost in starting if cost.device_hours is not None}):
        console.print(f"from {known_from}", soft_wrap=True)

"""Prints a plan: what a launch would do with each run, and what it would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from repro.errors import count_of
from repro.launch.cost_estimate import CostEstimate, devices, total
from repro.launch.decide import Decision
from repro.launch.local_pool import parallelism
from repro.launch.text_table import MAX_ROWS, duration, state_counts, text_table

HEADERS = ("row", "seed", "state", "device hours", "wall time", "energy (kWh)", "a launch would", "record")
RIGHT = ("seed", "device hours", "wall time", "energy (kWh)")
UNKNOWN = "unknown"


def print_plan(
    title: str,
    decisions: Sequence[Decision],
    costs: Sequence[CostEstimate],
    console: Console,
    max_rows: int = MAX_ROWS,
    how_to_list_all: str = "",
) -> None:
    """Print a line for each of the first `max_rows` runs, then the total cost of the runs that would be started.

    `how_to_list_all` is printed if there are more runs.
    """
    pairs = list(zip(decisions, costs, strict=True))
    rows = [_row(decision, cost) for decision, cost in pairs[:max_rows]]
    console.print(text_table(HEADERS, rows, RIGHT))
    if len(pairs) > max_rows:
        console.print(f"and {count_of(len(pairs) - max_rows, 'more run')}{how_to_list_all}")
    to_start = [(decision, cost) for decision, cost in pairs if decision.action == "start"]
    counts = state_counts(each.run.state for each in decisions)
    console.print(f"{title}: {counts}; a launch would start {len(to_start)}")
    if to_start:
        _print_total(to_start, console)


def _row(decision: Decision, cost: CostEstimate) -> list[str]:
    run = decision.run
    return [
        run.row.id,
        str(run.config.seed),
        run.state,
        UNKNOWN if cost.device_hours is None else rounded(cost.device_hours),
        UNKNOWN if cost.wall_hours is None else duration(3600 * cost.wall_hours),
        UNKNOWN if cost.energy_kwh is None else f"{cost.energy_kwh:,.2f}",
        "start it" if decision.action == "start" else f"{decision.action} it: {decision.why}",
        str(run.record.path),
    ]


def _print_total(to_start: Sequence[tuple[Decision, CostEstimate]], console: Console) -> None:
    runs, costs = [decision.run for decision, _ in to_start], [cost for _, cost in to_start]
    config = runs[0].config
    parallel = parallelism(config.launcher.parallel, config.scale.cpu_threads)
    cost = total(runs, costs, parallel)
    if cost.unknown < len(runs):
        unit = "GPU" if all(each.is_on_gpu for each in costs) else "CPU"
        energy = "energy unknown (--watts)" if cost.energy_kwh is None else f"{cost.energy_kwh:,.1f} kWh"
        count = min(parallel, len(runs)) * devices(config)
        times = _times(cost.device_hours, cost.wall_hours, unit, count)
        console.print(f"at least {rounded(cost.device_hours)} {unit}-hours: {times}; {energy}", soft_wrap=True)
        console.print(
            "without time in a queue; unless estimated from finished runs, training only, without data loading",
            soft_wrap=True,
        )
    for reason, count in Counter(cost.known_from for cost in costs if cost.device_hours is None).items():
        console.print(f"not included: {count_of(count, 'run')}, {reason}", soft_wrap=True)
    for known_from in sorted({cost.known_from for cost in costs if cost.device_hours is not None}):
        console.print(f"from {known_from}", soft_wrap=True)


def rounded(hours: float) -> str:
    """Format hours with three significant digits: `123,000`, `42.5`, `0.012`."""
    return f"{float(f'{hours:.3g}'):,.0f}" if hours >= 100 else f"{hours:.3g}"


def _times(device_hours: float, wall_hours: float, unit: str, count: int) -> str:
    """Format the time on one device and on `count` devices: `5,105 days on 1 GPU, 10 on 512`."""
    if min(device_hours, wall_hours) >= 2 * 24:
        alone, together = f"{device_hours / 24:,.0f} days", f"{wall_hours / 24:,.0f}"
    else:
        alone, together = duration(3600 * device_hours), duration(3600 * wall_hours)
    return f"{alone} on 1 {unit}" + (f", {together} on {count}" if count > 1 else "")

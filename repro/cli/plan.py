"""Show which runs a launch would start and what they would cost.

Examples:
  repro plan table1
  repro plan table1 'deit_small/*' --scale paper launcher=slurm data.root=/data/imagenet
  repro plan table1 'deit_small/*' --ladder
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from repro.cli.options import TABLE_WIDTH, add_command, console
from repro.cli.selection import Selection, add_selection, selection
from repro.errors import UserError
from repro.runs.status import MAX_ATTEMPTS

if TYPE_CHECKING:
    from repro.config import Config
    from repro.launch.plan import PlannedRun
    from repro.timing.rate import Throughput

PROBE_S = 45.0


def add_parser(commands: Any) -> None:
    command = add_command(commands, "plan", __doc__, run)
    add_selection(command)
    command.add_argument("--json", action="store_true", help="print the plan as JSON")
    command.add_argument("--all", action="store_true", help="list all runs of a long plan")
    text = "show the cost of each rung of evidence: counted, local, mini, weights, paper (docs/evidence.md)"
    command.add_argument("--ladder", action="store_true", help=text)
    command.add_argument("--probe", action="store_true", help="measure the throughput of this machine first (45 s)")
    command.add_argument("--watts", type=float, metavar="W", help="power of a device in watts, to estimate the energy")


def run(options: argparse.Namespace) -> int:
    from repro.launch.cost_estimate import estimates, known_throughput
    from repro.launch.decide import decide
    from repro.launch.print_plan import print_plan
    from repro.launch.queue import queue_of
    from repro.launch.slurm_parameters import idle_gpus
    from repro.launch.text_table import MAX_ROWS

    chosen = selection(options)
    if options.ladder:
        return _ladder(chosen, is_json=options.json)
    runs = chosen.plan()
    decisions = decide(runs, queue_of(runs), retry=False, max_attempts=MAX_ATTEMPTS)
    costs = estimates(runs, _probe(runs) if options.probe else known_throughput, options.watts)
    if options.json:
        entries = [
            {
                "row": run.row.id,
                "seed": run.config.seed,
                "state": run.state,
                "action": decision.action,
                "why": decision.why,
                "signature": run.config.signature,
                "record": str(run.record.path),
                "device_hours": cost.device_hours,
                "wall_hours": cost.wall_hours,
                "energy_kwh": cost.energy_kwh,
                "cost_known_from": cost.known_from,
            }
            for run, decision, cost in zip(runs, decisions, costs, strict=True)
        ]
        print(json.dumps(entries, indent=2))
        return 0
    max_rows = len(runs) if options.all else MAX_ROWS
    print_plan(chosen.title, decisions, costs, console(TABLE_WIDTH), max_rows, "; --all lists them")
    if idle := idle_gpus(runs[0].config.launcher):
        print(idle)
    return 0


def _ladder(chosen: Selection, *, is_json: bool) -> int:
    from repro.launch.cost_estimate import known_throughput
    from repro.launch.ladder import ladder, print_ladder

    if chosen.overrides:
        raise UserError(
            f"--ladder: shows every scale, to which {' '.join(chosen.overrides)} may not apply; leave it out"
        )
    rungs = ladder(chosen.table, chosen.patterns, chosen.seed_count, chosen.root, known_throughput)
    if is_json:
        print(json.dumps([asdict(rung) for rung in rungs], indent=2))
    else:
        print_ladder(rungs, console(TABLE_WIDTH))
    return 0


def _probe(runs: Sequence[PlannedRun]) -> Callable[[Config], Throughput | None]:
    """Measure each model and micro-batch, within `PROBE_S` seconds in total."""
    from repro.timing.throughput import probe

    models = len({(run.config.backbone.name, run.config.model, run.config.recipe.micro_batch) for run in runs})
    return partial(probe, budget_s=PROBE_S / max(1, models))

"""`repro plan`, `launch`, `retry`: what would be started, and starting it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from repro.commands.selection import add_selection, command_line, console, planned, split
from repro.commands.tables import add_reports, take_for_figures, write_report
from repro.runs.status import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from repro.config import Config
    from repro.launch.plan import PlannedRun
    from repro.measure.rate import Throughput
    from repro.rows import Table

PROBE_S = 45.0
WORDS = "row patterns and key=value overrides"


def add_plan(commands: Any) -> None:
    """Add `plan` to the command line's subparsers."""
    command = commands.add_parser("plan", help="which runs a launch would start")
    add_selection(command, WORDS)
    command.add_argument("--json", action="store_true")
    command.add_argument("--probe", action="store_true", help="measure throughput here, in less than a minute")
    command.add_argument("--watts", type=float, metavar="W", help="power of one device, for the energy")
    command.set_defaults(function=_plan)


def add_launch(commands: Any) -> None:
    """Add `launch` to the command line's subparsers."""
    command = commands.add_parser("launch", help="start what is not done, and wait for it")
    add_selection(command, WORDS)
    command.add_argument("--retry", action="store_true", help="start failed runs again")
    _add_launching(command)
    command.set_defaults(function=_launch)


def add_retry(commands: Any) -> None:
    """Add `retry` to the command line's subparsers."""
    command = commands.add_parser("retry", help="start the failed runs again")
    add_selection(command, WORDS)
    _add_launching(command)
    command.set_defaults(function=_retry, retry=True)


def _add_launching(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask (launch asks for Slurm, and at scale paper)")
    command.add_argument(
        "--max-attempts",
        type=int,
        default=MAX_ATTEMPTS,
        metavar="N",
        help=f"leave a run alone that was started N times without getting further (default {MAX_ATTEMPTS})",
    )
    command.add_argument(
        "--figures",
        action="store_true",
        help="take from finished models what figures and heat map rows need, before the report (extract, interpret)",
    )
    add_reports(command)


def _plan(options: argparse.Namespace) -> int:
    from repro.launch.costing import as_json, costs, published
    from repro.launch.launching import jobs_if_any
    from repro.launch.reconcile import decide
    from repro.launch.request import idle_gpus
    from repro.launch.showing import print_plan

    table, runs = planned(options)
    decisions = decide(runs, jobs_if_any(runs), retry=False, max_attempts=MAX_ATTEMPTS)
    source = _probe(runs) if options.probe else published
    prices = costs(runs, source, options.watts)
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
                **as_json(price),
            }
            for run, decision, price in zip(runs, decisions, prices, strict=True)
        ]
        print(json.dumps(entries, indent=2))
        return 0
    print_plan(f"{table.name} at scale {options.scale}", decisions, prices, console())
    if runs and (idle := idle_gpus(runs[0].config.launcher)):
        print(idle)
    return 0


def _probe(runs: list[PlannedRun]) -> Callable[[Config], Throughput | None]:
    """Measure each geometry here, all of them in less than a minute."""
    from functools import partial

    from repro.measure.throughput import probe

    geometries = len({(run.config.backbone.name, run.config.model, run.config.recipe.micro_batch) for run in runs})
    return partial(probe, budget_s=PROBE_S / max(1, geometries))


def _launch(options: argparse.Namespace) -> int:
    table, runs = planned(options)
    return _start(options, table, runs)


def _retry(options: argparse.Namespace) -> int:
    table, runs = planned(options)
    runs = [run for run in runs if run.state not in ("planned", "done", "missing")]
    if not runs:
        print("nothing has failed")
        return 0
    return _start(options, table, runs)


def _start(options: argparse.Namespace, table: Table, runs: list[PlannedRun]) -> int:
    from repro.launch.launching import Wishes, launch

    show = command_line("status", options, None, "--watch")
    wishes = Wishes(options.retry, options.yes, options.max_attempts, options.runs, show)
    outcome = launch(options.table, runs, wishes, console())
    runs_here = runs[0].config.launcher.runs_here
    read = {row.run_of for row in table.select(split(options)[0], options.scale) if row.run_of}
    if options.figures and not runs_here:
        print(f"--figures waits for finished runs; then: {command_line('extract', options)}")
    if options.figures and runs_here and not outcome.is_interrupted:
        take_for_figures(runs, read)
    if runs_here or any(run.is_done for run in runs):
        write_report(options)  # of runs that wait in a queue there is nothing to tell yet
    if any(run.is_done and run.row.id in read and run.record.interpretation() is None for run in runs):
        print(f"where models look, and the rows of heat maps: {command_line('interpret', options)}")
    if outcome.is_interrupted:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    for run, why in outcome.failed:
        print(f"failed: {run.row.id}: {why} ({run.record.path})", file=sys.stderr)
    if outcome.failed:
        first = outcome.failed[0][0]
        logs = command_line("logs", options, [first.row.id], "--seed", str(first.config.seed))
        print(f"what it wrote: {logs}\nonce it is mended: {command_line('retry', options)}", file=sys.stderr)
    if outcome.unfinished:
        print(f"not finished: {len(outcome.unfinished)} runs; the same command goes on with them", file=sys.stderr)
    return 1 if outcome.failed or outcome.unfinished else 0

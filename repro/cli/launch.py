"""Start the unfinished runs of a table, and wait for those on this machine.

Examples:
  repro launch table1
  repro launch table1 'deit_small/*' --scale paper launcher=slurm data.root=/data/imagenet

Finished runs are skipped and active runs are not touched: launching twice starts nothing twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repro.cli.options import TABLE_WIDTH, add_command, add_reports, at_least, console
from repro.cli.selection import Selection, add_selection, selection
from repro.errors import count_of, first_few
from repro.runs.status import MAX_ATTEMPTS

if TYPE_CHECKING:
    from repro.launch.launch import Outcome
    from repro.launch.plan import PlannedRun


def add_parser(commands: Any) -> None:
    command = add_command(commands, "launch", __doc__, run)
    add_selection(command)
    command.add_argument("--retry", action="store_true", help="also start failed runs")
    add_launch_options(command)


def add_launch_options(command: argparse.ArgumentParser) -> None:
    """Add the options that `launch` and `retry` share."""
    text = "do not ask for confirmation (asked on Slurm, and at scales mini and paper)"
    command.add_argument("--yes", action="store_true", help=text)
    text = f"do not start a run again after N starts without progress (default {MAX_ATTEMPTS})"
    command.add_argument("--max-attempts", type=at_least(1), default=MAX_ATTEMPTS, metavar="N", help=text)
    text = "before the report, extract the data for its figures and heat map rows (repro extract, repro interpret)"
    command.add_argument("--figures", action="store_true", help=text)
    add_reports(command)


def run(options: argparse.Namespace) -> int:
    chosen = selection(options)
    return start(chosen, chosen.plan(reads_data=True), options)


def start(chosen: Selection, runs: Sequence[PlannedRun], options: argparse.Namespace) -> int:
    """Launch runs, write the report, and print what failed; returns the exit code."""
    from repro.launch.launch import LaunchOptions, launch

    show_status = chosen.command("status", None, "--watch")
    launch_options = LaunchOptions(options.retry, options.yes, options.max_attempts, options.runs, show_status)
    outcome = launch(chosen.table.name, runs, launch_options, console(TABLE_WIDTH))
    _write_report(chosen, runs, outcome, options)
    return _print_outcome(chosen, outcome)


def _write_report(chosen: Selection, runs: Sequence[PlannedRun], outcome: Outcome, options: argparse.Namespace) -> None:
    from repro.cli.extract import extract_for_figures
    from repro.cli.report import write_report

    runs_here = runs[0].config.launcher.runs_here
    interpreted_rows = {row.reads_runs_of for row in chosen.rows if row.reads_runs_of}
    if options.figures and not runs_here:
        print(f"--figures needs finished runs; when they are done: {chosen.command('extract')}")
    if options.figures and runs_here and not outcome.is_interrupted:
        extract_for_figures(runs, interpreted_rows)
    if runs_here or any(run.is_done for run in runs):  # else all of them wait in a queue
        write_report(chosen, options.reports)
    if any(run.is_done and run.row.id in interpreted_rows and run.record.interpretation() is None for run in runs):
        print(f"heat maps, and the rows about them: {chosen.command('interpret')}")


def _print_outcome(chosen: Selection, outcome: Outcome) -> int:
    from repro.launch.launch import INTERRUPTED

    if outcome.is_interrupted:
        print("stopped; run the same command to resume", file=sys.stderr)
        return INTERRUPTED
    by_reason: dict[str, list[PlannedRun]] = {}
    for run, why in outcome.failed:
        by_reason.setdefault(why, []).append(run)
    for why, runs in by_reason.items():
        ids = first_few([run.row.id for run in runs], 1)
        print(f"failed: {ids}: {why} ({runs[0].record.path})", file=sys.stderr)
    if outcome.failed:
        first = outcome.failed[0][0]
        logs = chosen.command("logs", [first.row.id], "--seed", str(first.config.seed))
        print(f"its logs: {logs}\nwhen the cause is fixed: {chosen.command('retry')}", file=sys.stderr)
    if outcome.unfinished:
        print(
            f"not finished: {count_of(len(outcome.unfinished), 'run')}; run the same command to resume", file=sys.stderr
        )
    return 1 if outcome.failed or outcome.unfinished else 0

"""Show the state of each run of a table, or of each record in a folder.

Examples:
  repro status table1
  repro status table1 --scale paper --watch
  repro status runs/by_hand                   # the runs of repro train
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from repro.cli.options import TABLE_WIDTH, add_command, console
from repro.cli.recorded import TABLE_OR_FOLDER, runs_of
from repro.cli.selection import add_selection

if TYPE_CHECKING:
    from rich.console import RenderableType


def add_parser(commands: Any) -> None:
    command = add_command(commands, "status", __doc__, run)
    add_selection(command, TABLE_OR_FOLDER)
    command.add_argument("--watch", action="store_true", help="update until Ctrl-C")
    command.add_argument("--json", action="store_true", help="print the states as JSON")
    command.add_argument("--all", action="store_true", help="list all runs of a long table, also done and planned ones")


def run(options: argparse.Namespace) -> int:
    """Print the states, with failed runs grouped by error."""
    from repro.launch import slurm
    from repro.launch.failures import failures
    from repro.launch.live_view import cached, watch
    from repro.launch.queue import queue_of
    from repro.launch.status import run_statuses
    from repro.launch.status_table import status_table
    from repro.launch.text_table import MAX_ROWS

    chosen = runs_of(options)
    runs, out = chosen.plan(), console(TABLE_WIDTH)
    if options.watch:
        queue_now, ended = cached(lambda: queue_of(runs)), cached(slurm.ended)

        def view() -> RenderableType:
            current = queue_now()
            return status_table(chosen.title, run_statuses(runs, current, ended=ended), current is not None)

        watch(view, out)
    queue = queue_of(runs)
    statuses = run_statuses(runs, queue)
    if options.json:
        print(json.dumps([asdict(status) for status in statuses], indent=2))
        return 0
    max_rows = len(runs) if options.all else MAX_ROWS
    out.print(status_table(chosen.title, statuses, queue is not None, max_rows))
    for failure in failures(statuses, chosen.root, chosen.logs_command):
        out.print(f"\n{len(failure.rows)} failed with the same error: {failure.error}", soft_wrap=True, markup=False)
        out.print(f"  {', '.join(failure.rows)}\n  {failure.command}", soft_wrap=True, markup=False)
    return 0

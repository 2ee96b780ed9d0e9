"""Show the state of each run of a table, or of each record in a folder.

Examples:
  repro status table1
  repro status table1 --scale paper --watch
  repro status runs/by_hand                   # the runs of repro train
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from repro.cli.options import TABLE_WIDTH, add_command, console
from repro.cli.recorded import TABLE_OR_FOLDER, runs_of
from repro.cli.selection import add_selection
from repro.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EVERY_S = 2.0
LINE_EVERY_S = 60.0  # if the output is not a terminal
QUERY_EVERY_S = 15.0  # limits the load on Slurm's controller, which all users share


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
    from repro.launch.queue import queue_of
    from repro.launch.status import run_statuses
    from repro.launch.status_table import status_table
    from repro.launch.text_table import MAX_ROWS

    if options.watch and options.json:
        raise UserError("status --watch --json: choose one; --json prints the states once")
    chosen = runs_of(options)
    runs, out = chosen.plan(), console(TABLE_WIDTH)
    max_rows = len(runs) if options.all else MAX_ROWS
    if options.watch:
        queue_now, ended = throttled(lambda: queue_of(runs)), throttled(slurm.ended)

        def view() -> RenderableType:
            current = queue_now()
            return status_table(chosen.title, run_statuses(runs, current, ended=ended), current is not None, max_rows)

        _watch(view, out)
    queue = queue_of(runs)
    statuses = run_statuses(runs, queue)
    if options.json:
        print(json.dumps([asdict(status) for status in statuses], indent=2))
        return 0
    out.print(status_table(chosen.title, statuses, queue is not None, max_rows))
    for failure in failures(statuses, chosen.root, chosen.logs_command):
        out.print(f"\n{len(failure.rows)} failed with the same error: {failure.error}", soft_wrap=True, markup=False)
        out.print(f"  {', '.join(failure.rows)}\n  {failure.command}", soft_wrap=True, markup=False)
    return 0


def throttled(query: Callable[..., Any]) -> Callable[..., Any]:
    """Return `query` with its last result cached for up to `QUERY_EVERY_S` seconds, or until its arguments change."""
    answer = functools.lru_cache(maxsize=1)(lambda _, *args: query(*args))
    return lambda *args: answer(time.monotonic() // QUERY_EVERY_S, *args)


def _watch(view: Callable[[], RenderableType], out: Console) -> NoReturn:
    """Show `view()` again every two seconds or, if the output is not a terminal, every minute."""
    from rich.live import Live

    if not out.is_terminal:
        while True:
            out.print(view())
            time.sleep(LINE_EVERY_S)
    with Live(view(), console=out, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            time.sleep(EVERY_S)
            live.update(view(), refresh=True)

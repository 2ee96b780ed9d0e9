"""Start failed runs again.

Example:
  repro retry table1 'deit_small/*'
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.launch import add_launch_options, start
from repro.cli.options import add_command
from repro.cli.selection import add_selection, selection


def add_parser(commands: Any) -> None:
    command = add_command(commands, "retry", __doc__, run)
    add_selection(command)
    add_launch_options(command)
    command.set_defaults(retry=True)


def run(options: argparse.Namespace) -> int:
    """Launch the selected runs that were started before and are not finished."""
    chosen = selection(options)
    runs = [run for run in chosen.plan(reads_data=True) if run.state not in ("planned", "done", "missing")]
    if not runs:
        print("no failed runs")
        return 0
    return start(chosen, runs, options)

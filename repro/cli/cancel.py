"""Cancel runs: they save and stop, and a later launch resumes them.

Examples:
  repro cancel table1 'deit_small/*'
  repro cancel runs/by_hand                   # the runs of repro train
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.options import add_command
from repro.cli.recorded import TABLE_OR_FOLDER, runs_of
from repro.cli.selection import add_selection


def add_parser(commands: Any) -> None:
    command = add_command(commands, "cancel", __doc__, run)
    add_selection(command, TABLE_OR_FOLDER)


def run(options: argparse.Namespace) -> int:
    """Cancel the selected runs. The exit code is 1 if any of them is still running or waiting."""
    from repro.launch.cancel import cancel
    from repro.launch.queue import queue_of

    chosen = runs_of(options)
    runs = chosen.selected_runs()
    cancelled = cancel(runs, queue_of(runs), chosen.root)
    print("\n".join([*cancelled.stopping, *cancelled.not_cancelled] or ["no run is running or waiting"]))
    return 1 if cancelled.not_cancelled else 0

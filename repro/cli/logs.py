"""Show the history of a run, and print the output of its latest attempt.

Examples:
  repro logs table1 deit_small/svite-50
  repro logs runs/by_hand/deit_tiny/svite-50/local/seed0-1a2b3c4d
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.options import add_command
from repro.cli.recorded import TABLE_OR_FOLDER, runs_of
from repro.cli.selection import add_selection
from repro.errors import UserError

LAST_LINES = 100


def add_parser(commands: Any) -> None:
    command = add_command(commands, "logs", __doc__, run)
    add_selection(command, TABLE_OR_FOLDER)
    command.add_argument(
        "--seed", type=int, metavar="N", help="seed of the run (default: 0, or that of the only record)"
    )
    command.add_argument("--attempt", type=int, metavar="N", help="number of the attempt (default: the latest)")
    command.add_argument(
        "--all", action="store_true", help=f"print complete files instead of the last {LAST_LINES} lines"
    )


def run(options: argparse.Namespace) -> int:
    """Print the history of a run, stdout and stderr of an attempt, and the logs of its job."""
    from repro.launch.history import history
    from repro.launch.logs import log_files, tail

    chosen = runs_of(options)
    run = chosen.run_of_seed(options.seed)
    files = log_files(run.record, chosen.root, options.attempt)
    if not files:
        raise UserError(f"{run.row.id}: no output yet ({run.record.path} is {run.state})")
    print("\n".join(history(run.record, run.state)))
    for file in files:
        print(f"==> {file}")
        if options.all:
            print(file.read_text(encoding="utf-8", errors="replace").rstrip("\n"))
        else:
            print("\n".join(tail(file)[-LAST_LINES:]))
    return 0

"""Extract the data for figures from finished checkpoints: attention heads, densities, kept patches.

Example:
  repro extract table1
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from repro.cli.options import add_command, announced, set_threads
from repro.cli.selection import add_selection, selection
from repro.errors import count_of

if TYPE_CHECKING:
    from repro.launch.plan import PlannedRun


def add_parser(commands: Any) -> None:
    command = add_command(commands, "extract", __doc__, run)
    add_selection(command)
    command.add_argument("--again", action="store_true", help="repeat for records that already have an extract")


def run(options: argparse.Namespace) -> int:
    with announced("loading torch"):
        from repro.evaluation.extract import extract

    chosen = selection(options)
    runs = chosen.plan(reads_data=True)
    written = extract((run.record for run in runs), again=options.again)
    print(f"{written} of {count_of(len(runs), 'record')}; to draw them: {chosen.command('report')}")
    return 0


def extract_for_figures(runs: Sequence[PlannedRun], interpreted_rows: Collection[str]) -> None:
    """Extract from all finished runs, and interpret those of `interpreted_rows`, whose heat maps other rows use."""
    from repro.evaluation.extract import extract
    from repro.evaluation.interpretation.records import interpret_records

    done = [run for run in runs if run.is_done]
    for run in done[:1]:  # small models gain nothing from more threads than they were trained with
        set_threads(run.config.scale.cpu_threads)
    extract((run.record for run in done), log=lambda _: None)
    interpret_records(run.record for run in done if run.row.id in interpreted_rows)

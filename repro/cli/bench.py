"""Measure latencies on this machine for the time column of a table.

Examples:
  repro bench time table1
  repro bench time table1 'deit_small/*' --device cuda --batch 256
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repro.cli.completion import complete, config_overrides, every_table, rows_of_table
from repro.cli.options import add_command, add_runs, announced, at_least, console
from repro.errors import UserError

if TYPE_CHECKING:
    from repro.tables.rows import Row


def add_parser(commands: Any) -> None:
    command = add_command(commands, "bench", __doc__, run)
    command.add_argument("what", choices=("time",), help="what to measure")
    complete(command.add_argument("table", help="name of a table (repro list)"), every_table)
    text = "row patterns; launcher=NAME measures only if runs of that launcher are on this machine"
    words = command.add_argument("words", nargs="*", metavar="ROWS_OR_LAUNCHER", help=text)
    complete(words, rows_of_table, config_overrides)
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto")
    text = "batch size, may be repeated; the table shows the first (default 1 and 8, on a GPU 256 and 1)"
    command.add_argument("--batch", type=at_least(1), action="append", default=[], metavar="N", help=text)
    command.add_argument("--column", action="store_true", help="measure only the batch size that the table shows")
    text = "precision (default float32, on a GPU bfloat16)"
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help=text)
    command.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads (default 1)")
    command.add_argument("--budget", type=float, default=90, metavar="S", help="seconds in total (default 90)")
    command.add_argument("--again", action="store_true", help="repeat for rows that have a timing with these settings")
    add_runs(command, "folder for the timings (default runs/)")


def run(options: argparse.Namespace) -> int:
    from repro.config.compose import compose
    from repro.tables.loader import load_table

    table = load_table(options.table)
    selected = table.select([word for word in options.words if "=" not in word])
    rows = tuple(dict.fromkeys(table.source_row(row) for row in selected))
    launcher = [word for word in options.words if "=" in word]
    if any(not word.startswith("launcher") for word in launcher):
        raise UserError(f"bench time {' '.join(launcher)}: the only override is launcher=NAME")
    if launcher and not compose(launcher).launcher.runs_here:
        print(f"not timed: {launcher[-1]} runs on other machines; run repro bench time {table.name} on one of them")
        return 0
    with announced("loading torch"):
        from repro.timing.stopwatch import time_rows
        from repro.timing.timing_table import timing_table

    skipped = time_rows(
        table,
        rows,
        options.runs,
        device=options.device,
        batches=options.batch,
        is_column_only=options.column,
        dtype=options.dtype,
        threads=options.threads,
        budget_s=options.budget,
        again=options.again,
    )
    if skipped:
        print(f"  not timed within {options.budget:g} s: {_by_batch(skipped)}; run the same command to continue")
    if not options.column:
        console().print(timing_table(table, rows, options.runs))
    return 0


def _by_batch(skipped: Sequence[tuple[Row, int]]) -> str:
    rows: dict[int, list[str]] = {}
    for row, batch in skipped:
        rows.setdefault(batch, []).append(row.id)
    return "; ".join(f"at batch {batch} {', '.join(ids)}" for batch, ids in rows.items())

"""List the tables, or the rows of one table with their published values.

Examples:
  repro list
  repro list table1 'deit_small/*'
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from repro.cli.completion import complete, every_table, rows_of_table
from repro.cli.options import add_command
from repro.errors import UserError


def add_parser(commands: Any) -> None:
    command = add_command(commands, "list", __doc__, run)
    complete(command.add_argument("table", nargs="?", help="list the rows of this table"), every_table)
    text = "row patterns and row sets: 'deit_small/*' grid"
    complete(command.add_argument("words", nargs="*", metavar="ROWS", help=text), rows_of_table)
    command.add_argument("--json", action="store_true", help="print the rows as JSON")
    command.add_argument("--names", action="store_true", help="print only the names of the tables")


def run(options: argparse.Namespace) -> int:
    from repro.tables.loader import load_table, table_names

    if options.names:
        print("\n".join(table_names()))
        return 0
    if options.table is None:
        return _print_tables()
    rows = load_table(options.table).select(options.words)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    width = max((len(row.id) for row in rows), default=0)
    for row in rows:
        best = [row.best_published(metric) for metric in dict.fromkeys(value.metric for value in row.published)]
        values = "  ".join(f"{value.metric} {value.value:g} ({value.kind})" for value in best if value)
        source = f"  ({row.heat_map} heat map of the runs of {row.reads_runs_of})" if row.reads_runs_of else ""
        print(f"{row.id:{width}}  {values or 'no published value'}{source}")
    return 0


def _print_tables() -> int:
    """Print a line for each table; an invalid one does not hide the others."""
    from repro.tables.loader import load_table, table_names

    errors = []
    width = max(map(len, table_names()))
    for name in table_names():
        try:
            table = load_table(name)
        except UserError as error:
            errors.append(str(error))
        else:
            print(f"{name:{width}} {len(table.rows):3} rows  {table.title}")
    for text in errors:
        print(f"repro: {text}", file=sys.stderr)
    return 2 if errors else 0

"""Write the tables and figures of a table from the existing records.

Examples:
  repro report table1
  repro report table1 'deit_small/*' --scale paper
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from repro.cli.options import add_command, add_reports, console
from repro.cli.selection import Selection, add_selection, selection


def add_parser(commands: Any) -> None:
    command = add_command(commands, "report", __doc__, run)
    add_selection(command)
    add_reports(command)
    command.add_argument("--wide", action="store_true", help="show every column, here and in the Markdown file")
    text = "replace an earlier report that has more rows or more finished runs"
    command.add_argument("--force", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    write_report(selection(options), options.reports, is_wide=options.wide, is_forced=options.force)
    return 0


def write_report(chosen: Selection, folder: Path, *, is_wide: bool = False, is_forced: bool = False) -> None:
    """Write the table and its figures below `folder`; print the table, claims, summary and file paths."""
    from repro.report.build import build

    report = build(
        *(chosen.table, chosen.rows, chosen.scale, chosen.seeds, chosen.root, folder, chosen.overrides),
        is_wide=is_wide,
        is_forced=is_forced,
    )
    from repro.report.terminal import print_files, print_view

    out = console()
    print_view(report.view, out, is_wide=is_wide)
    print_files(report, folder, out)

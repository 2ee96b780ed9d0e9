"""Write the reproducibility card: nine variables, filled in from the provenance of the records.

Example:
  repro card table1 --scale paper --affiliation "a lab"
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.options import add_command, add_reports
from repro.cli.selection import add_selection, selection
from repro.errors import UserError


def add_parser(commands: Any) -> None:
    command = add_command(commands, "card", __doc__, run)
    add_selection(command)
    add_reports(command)
    text = "affiliation of the authors of this reproduction; stored in the card for later reports"
    command.add_argument("--affiliation", default="", help=text)


def run(options: argparse.Namespace) -> int:
    from repro.report.card import card_of, markdown_card, remembered_affiliation, write_card
    from repro.report.collect import collect_results
    from repro.report.folders import report_folder

    chosen = selection(options)
    results = collect_results(
        chosen.table, chosen.rows, chosen.scale, chosen.seeds, chosen.root, list(chosen.overrides)
    )
    affiliation = options.affiliation or remembered_affiliation(options.reports / chosen.table.name)
    filled = card_of(results, affiliation)
    if filled is None:
        raise UserError(f"{chosen.title}: no finished run below {chosen.root}; first: {chosen.command('launch')}")
    print(markdown_card(filled))
    for path in write_card(filled, report_folder(options.reports, chosen.table.name, chosen.scale)):
        print(path)
    return 0

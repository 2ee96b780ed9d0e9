"""`repro list`, `report`, `extract`, `interpret`, `card`: tables, and what is written from records."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.commands.selection import add_selection, command_line, console, planned, seeds_of, split

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from repro.launch.plan import PlannedRun


def add_list(commands: Any) -> None:
    """Add `list` to the command line's subparsers."""
    command = commands.add_parser("list", help="tables, and the rows of one with their published values")
    command.add_argument("table", nargs="?")
    command.add_argument("words", nargs="*", metavar="ROWS", help="patterns: 'deit_small/*' '!*/dense' grid")
    command.add_argument("--json", action="store_true")
    command.add_argument("--names", action="store_true", help="the tables' names only")
    command.set_defaults(function=_list)


def add_report(commands: Any) -> None:
    """Add `report` to the command line's subparsers."""
    command = commands.add_parser("report", help="write the table and its figure from the records on disk")
    add_selection(command, "row patterns and key=value overrides")
    add_reports(command)
    command.set_defaults(function=_report)


def add_reports(command: argparse.ArgumentParser, text: str = "where reports go") -> None:
    """Add where reports go."""
    command.add_argument("--reports", type=Path, default=Path("reports"), help=text)


def add_extract(commands: Any) -> None:
    """Add `extract` to the command line's subparsers."""
    command = commands.add_parser(
        "extract", help="take what figures need from finished checkpoints: heads, kept patches"
    )
    add_selection(command)
    command.add_argument("--again", action="store_true", help="from records that have it, too")
    command.set_defaults(function=_extract)


def add_interpret(commands: Any) -> None:
    """Add `interpret` to the command line's subparsers."""
    command = commands.add_parser(
        "interpret", help="where finished models look: heat maps, measured against true masks; patches kept"
    )
    add_selection(command)
    command.add_argument("--segmentation", type=Path, metavar="FILE", help="ImageNet-Segmentation's gtsegs_ijcv.mat")
    command.add_argument("--images", type=int, metavar="N", help="the first N only (default: all)")
    command.add_argument("--again", action="store_true", help="records that have it, too")
    command.set_defaults(function=_interpret)


def add_card(commands: Any) -> None:
    """Add `card` to the command line's subparsers."""
    command = commands.add_parser("card", help="the reproducibility card: nine variables, from the records' provenance")
    add_selection(command)
    add_reports(command, "where the card goes")
    command.add_argument(
        "--affiliation", default="", help="of whoever reproduces: no record knows it; remembered in the card"
    )
    command.set_defaults(function=_card)


def _list(options: argparse.Namespace) -> int:
    from repro.paper_tables import load_table, table_names

    if options.names:
        print("\n".join(table_names()))
        return 0
    if options.table is None:
        for name in table_names():
            table = load_table(name)
            print(f"{name:8} {len(table.rows):3} rows  {table.title}")
        return 0
    table = load_table(options.table)
    rows = table.select(options.words)
    if options.json:
        from dataclasses import asdict

        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    width = max((len(row.id) for row in rows), default=0)
    for row in rows:
        cells = {value.metric: None for value in row.published}
        values = [(metric, row.best_published(metric)) for metric in cells]
        text = "  ".join(f"{metric} {value.value:g} ({value.kind})" for metric, value in values if value)
        runs = f"  (what {row.heat_map} finds in the runs of {row.run_of})" if row.run_of else ""
        print(f"{row.id:{width}}  {text or 'no published value'}{runs}")
    return 0


def _report(options: argparse.Namespace) -> int:
    write_report(options)
    return 0


def write_report(options: argparse.Namespace) -> None:
    """Write the table and its figures, and print the table, its claims and the files' names."""
    with _uncollected():
        _write_report(options)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of reference cycles: what a report makes it keeps to its end, and looking through all of it
    again and again is a tenth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()
            gc.unfreeze()  # among the old: looked through when old objects are, and not at once as new ones would be


def _write_report(options: argparse.Namespace) -> None:
    from repro.paper_tables import load_table
    from repro.report.build import build

    table = load_table(options.table)
    rows, overrides = split(options)
    report = build(
        table,
        table.select(rows, options.scale),
        options.scale,
        seeds_of(options, table),
        options.runs,
        options.reports,
        overrides,
    )
    from repro.report.tables import print_claims, print_segmentation, print_table

    out = console()
    print_table(report.frame, table, out)
    print_segmentation(report.frame, table, out)
    print_claims(report.claims, out)
    for path in report.paths:
        out.print(str(path), soft_wrap=True, markup=False)  # a folder may be called [old]
    if report.awaited:
        out.print(report.awaited, soft_wrap=True, markup=False)


def _extract(options: argparse.Namespace) -> int:
    from repro.training.extract import extract

    _, runs = planned(options)
    written = extract((run.record for run in runs), again=options.again)
    print(f"{written} of {len(runs)} records; {command_line('report', options)} draws what is in them")
    return 0


def _interpret(options: argparse.Namespace) -> int:
    from repro.interpretation.interpret import interpret_records

    _, runs = planned(options)
    written = interpret_records(
        (run.record for run in runs), segmentation=options.segmentation, limit=options.images, again=options.again
    )
    print(f"{written} of {len(runs)} records; repro report {options.table} draws what is in them")
    return 0


def take_for_figures(runs: Sequence[PlannedRun], read: Collection[str]) -> None:
    """What figures and rows need of finished models: `repro extract` of all runs, `repro interpret` of those in `read`.

    Args:
        read: rows whose runs other rows read; nobody waits for the heat maps of all others.
    """
    import torch

    from repro.interpretation.interpret import interpret_records
    from repro.training.extract import extract

    done = [run for run in runs if run.is_done]
    for run in done[:1]:  # small models gain nothing by more threads than they were trained with
        torch.set_num_threads(run.config.scale.cpu_threads or torch.get_num_threads())
    extract((run.record for run in done), tell=lambda _: None)
    interpret_records(run.record for run in done if run.row.id in read)


def _card(options: argparse.Namespace) -> int:
    from repro.paper_tables import load_table
    from repro.report.card import card, markdown_card, remembered_affiliation, write_card

    table = load_table(options.table)
    rows, overrides = split(options)
    filled = card(
        table,
        table.select(rows, options.scale),
        options.scale,
        seeds_of(options, table),
        options.runs,
        overrides,
        options.affiliation or remembered_affiliation(options.reports / table.name),
    )
    print(markdown_card(filled))
    for path in write_card(filled, options.reports / table.name):
        print(path)
    return 0

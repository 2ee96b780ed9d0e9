"""`repro wandb ...`: what the command line says about the mirror."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from repro.commands.selection import SCALES, add_runs


def add_wandb(commands: Any) -> None:
    """Add `wandb push`, `pull` and `dashboard` to the command line's subparsers."""
    parser = commands.add_parser("wandb", help="the W&B mirror of the records: push, pull, dashboard")
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = inner.add_parser("push", help="bring W&B up to date from records; again sends nothing twice")
    command.add_argument("words", nargs="+", metavar="TABLE_OR_RECORD", help="a record, a folder of records, a table")
    command.add_argument(
        "--project", metavar="[ENTITY/]PROJECT", help="instead of where it is, WANDB_PROJECT or tracker.project"
    )
    add_runs(command)
    command.set_defaults(function=_push)

    command = inner.add_parser("pull", help="finished runs of a project as records here")
    command.add_argument("project", metavar="[ENTITY/]PROJECT")
    command.add_argument("words", nargs="*", metavar="TABLE[/ROW]", help="only these (default: all)")
    command.add_argument(
        "--any-signature", action="store_true", help="take runs of one row and seed whose configs differ"
    )
    add_runs(command, "where the records go (default runs/)")
    command.set_defaults(function=_pull)

    command = inner.add_parser("dashboard", help="a workspace and a report for a table")
    command.add_argument("table")
    command.add_argument("words", nargs="*", metavar="ROWS_OR_OVERRIDES")
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default: the table's)")
    command.add_argument("--project", metavar="[ENTITY/]PROJECT", help="instead of WANDB_PROJECT or tracker.project")
    command.add_argument("--offline", action="store_true", help="only write the specification")
    add_runs(command)
    command.add_argument("--reports", type=Path, default=Path("reports"), help="where the specification goes")
    command.set_defaults(function=_dashboard)

    command = inner.add_parser("publish", help="publish a dashboard's specification that was written offline")
    command.add_argument("specification", type=Path)
    command.add_argument("--project", metavar="[ENTITY/]PROJECT", help="instead of the one it was written for")
    command.set_defaults(function=_publish)


def _push(options: argparse.Namespace) -> int:
    from repro.tracking.push import push, records_of

    failed = 0
    for pushed in push(records_of(options.words, options.runs), options.project):
        if pushed.failed:
            failed += 1
            print(f"failed   {pushed.record}: {pushed.failed}", flush=True)
        elif pushed.skipped:
            print(f"skipped  {pushed.record}: {pushed.skipped}", flush=True)
        else:
            news = f"{pushed.sent} entries" if pushed.sent else "up to date"
            print(f"pushed   {pushed.record}: {news}  {pushed.url}", flush=True)
    return 1 if failed else 0


def _pull(options: argparse.Namespace) -> int:
    from repro.tracking.pull import pull, remote_runs

    pulled = pull(remote_runs(options.project), options.runs, options.words, options.any_signature)
    for path in pulled.written:
        print(f"pulled   {path}")
    print(
        f"{len(pulled.written)} pulled, {len(pulled.here_already)} here already, "
        f"{pulled.passed_over} passed over (unfinished, by hand, not asked for, or of other code)"
    )
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from repro.paper_tables import load_table
    from repro.tracking.dashboard import make

    words: list[str] = options.words
    table = load_table(options.table)
    print(
        make(
            table,
            rows=[word for word in words if "=" not in word],
            overrides=[word for word in words if "=" in word],
            scale=options.scale,
            seeds=range(options.seeds or table.default_seeds(options.scale)),
            runs=options.runs,
            reports=options.reports,
            project=options.project,
            is_offline=options.offline,
        )
    )
    return 0


def _publish(options: argparse.Namespace) -> int:
    from repro.tracking.dashboard import publish_file

    print(publish_file(options.specification, options.project))
    return 0

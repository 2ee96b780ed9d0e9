"""Push records to Weights & Biases, pull runs from it, or publish a dashboard.

Examples:
  repro wandb push table1
  repro wandb pull my_project table1
  repro wandb dashboard table1
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.completion import complete, every_table
from repro.cli.options import add_command, add_reports, add_runs, folder
from repro.cli.selection import add_selection, selection
from repro.errors import count_of

PROJECT = "[ENTITY/]PROJECT"
PUSH = """Bring W&B up to date with the records. Nothing is sent twice.

Examples:
  repro wandb push table1
  repro wandb push runs/table1/deit_small
"""
PULL = """Write the finished runs of a W&B project as records.

Example:
  repro wandb pull my_team/my_project table1/deit_small
"""
DASHBOARD = """Create a W&B workspace and report for a table.

Example:
  repro wandb dashboard table1 --project my_team/my_project
"""
PUBLISH = """Publish a dashboard that was written with --offline.

Example:
  repro wandb publish reports/table1/local/table1.wandb.json
"""


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "wandb", __doc__)
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = add_command(inner, "push", PUSH, _push)
    text = "table, record, or folder of records"
    complete(command.add_argument("words", nargs="+", metavar="TABLE_OR_RECORD", help=text), every_table)
    text = "project (default: the run's own, WANDB_PROJECT or tracker.project)"
    command.add_argument("--project", metavar=PROJECT, help=text)
    add_runs(command)

    command = add_command(inner, "pull", PULL, _pull)
    command.add_argument("project", metavar=PROJECT)
    words = command.add_argument("words", nargs="*", metavar="TABLE[/ROW]", help="only these rows (default: all)")
    complete(words, every_table)
    add_runs(command, "folder for the records (default runs/)")

    command = add_command(inner, "dashboard", DASHBOARD, _dashboard)
    add_selection(command)
    command.add_argument("--project", metavar=PROJECT, help="project (default: WANDB_PROJECT or tracker.project)")
    command.add_argument("--offline", action="store_true", help="only write the specification")
    add_reports(command, "folder for the specification (default reports/)")

    command = add_command(inner, "publish", PUBLISH, _publish)
    command.add_argument("specification", type=folder)
    command.add_argument("--project", metavar=PROJECT, help="project (default: the specification's)")


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
            sent = count_of(pushed.sent, "entry", "entries") if pushed.sent else "up to date"
            print(f"pushed   {pushed.record}: {sent}  {pushed.url}", flush=True)
    return 1 if failed else 0


def _pull(options: argparse.Namespace) -> int:
    from repro.tracking.pull import pull, remote_runs

    pulled = pull(remote_runs(options.project), options.runs, options.words)
    for path in pulled.written:
        print(f"pulled   {path}")
    print(
        f"{len(pulled.written)} pulled, {len(pulled.existing)} already here, "
        f"{pulled.skipped} skipped (unfinished, single runs, not selected, or of other code)"
    )
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from repro.dashboards.dashboard import make

    chosen = selection(options)
    print(
        make(
            chosen.table,
            rows=chosen.rows,
            overrides=chosen.overrides,
            scale=chosen.scale,
            seeds=chosen.seeds,
            runs=chosen.root,
            reports=options.reports,
            project=options.project,
            is_offline=options.offline,
        )
    )
    return 0


def _publish(options: argparse.Namespace) -> int:
    from repro.dashboards.dashboard import publish_file

    print(publish_file(options.specification, options.project))
    return 0

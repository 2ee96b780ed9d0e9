"""`repro status`, `logs`, `cancel`, `doctor`: looking at runs and at the machine, and stopping runs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from repro.commands.selection import SCALES, add_runs, add_selection, command_line, console, planned, split
from repro.errors import UserError

WORDS = "row patterns and key=value overrides"


def add_status(commands: Any) -> None:
    """Add `status` to the command line's subparsers."""
    command = commands.add_parser("status", help="where the runs of a table stand")
    add_selection(command, WORDS)
    command.add_argument("--watch", action="store_true", help="live, until Ctrl-C")
    command.add_argument("--json", action="store_true")
    command.set_defaults(function=_status)


def add_cancel(commands: Any) -> None:
    """Add `cancel` to the command line's subparsers."""
    command = commands.add_parser("cancel", help="stop runs; they save first, and a launch goes on with them")
    add_selection(command, WORDS)
    command.set_defaults(function=_cancel)


def add_logs(commands: Any) -> None:
    """Add `logs` to the command line's subparsers."""
    command = commands.add_parser("logs", help="what the latest attempt of a row wrote")
    add_selection(command, WORDS)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--attempt", type=int, help="its number (default: the latest)")
    command.add_argument("--all", action="store_true", help="whole files, not only their ends")
    command.set_defaults(function=_logs)


def add_doctor(commands: Any) -> None:
    """Add `doctor` to the command line's subparsers."""
    command = commands.add_parser("doctor", help="is this machine, or this cluster, ready?")
    command.add_argument("words", nargs="*", metavar="KEY=VALUE", help="launcher=slurm data.root=/data/imagenet")
    command.add_argument("--scale", choices=SCALES, default="local")
    add_runs(command)
    command.add_argument("--json", action="store_true")
    command.set_defaults(function=_doctor)


def _status(options: argparse.Namespace) -> int:
    from repro.launch.failures import causes
    from repro.launch.launching import jobs_if_any
    from repro.launch.overview import as_json, lines, render
    from repro.launch.watching import Asked, watch

    table, runs = planned(options)
    jobs = Asked(lambda: jobs_if_any(runs))
    if options.json:
        print(json.dumps(as_json(lines(runs, jobs(), None, jobs.at)), indent=2))
        return 0
    title, out = f"{table.name} at scale {options.scale}", console()
    if options.watch:
        from repro.launch import slurm

        ends = Asked(slurm.ended)
        watch(lambda: render(title, lines(runs, jobs(), None, jobs.at, ends), jobs() is not None), out)
        return 0
    entries = lines(runs, jobs(), None, jobs.at)
    out.print(render(title, entries, jobs() is not None), soft_wrap=True)
    for cause in causes(entries, options.runs, lambda row, seed: _logs_command(options, row, seed)):
        out.print(f"\n{len(cause.rows)} failed alike: {cause.line}", soft_wrap=True, markup=False)
        out.print(f"  {', '.join(cause.rows)}\n  {cause.show}", soft_wrap=True, markup=False)
    return 0


def _logs_command(options: argparse.Namespace, row: str, seed: int) -> str:
    return command_line("logs", options, [row], "--seed", str(seed))


def _logs(options: argparse.Namespace) -> int:
    from repro.launch.failures import log_files, tail

    split(options)  # takes in `seeds=3`, which is about other commands
    options.seeds = options.seed + 1
    _, runs = planned(options)
    run = next(run for run in reversed(runs) if run.config.seed == options.seed)
    files = log_files(run.record, options.runs, options.attempt)
    if not files:
        raise UserError(f"{run.row.id}: nothing was written yet ({run.record.path} is {run.state})")
    for file in files:
        print(f"==> {file}")
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if options.all else tail(file)[-100:]
        print("\n".join(lines))
    return 0


def _cancel(options: argparse.Namespace) -> int:
    from repro.launch.control import cancel
    from repro.launch.launching import jobs_if_any

    table, runs = planned(options)
    # Not the runs that these begin with: others may wait for them.
    # A run of another table may have the name of a row of this one (`method.starts_from=table1/dense`).
    chosen = {(row.table, row.run_id) for row in table.select(split(options)[0], options.scale)}
    runs = [run for run in runs if (run.row.table, run.row.id) in chosen]
    cancelled = cancel(runs, jobs_if_any(runs), options.runs)
    print("\n".join([*cancelled.told, *cancelled.left] or ["nothing is running or waiting"]))
    return 1 if cancelled.left else 0


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from repro.composition import compose, every_data
    from repro.launch.doctor import examine

    config = compose([f"scale={options.scale}", *options.words])
    checks = []
    for check in examine(config, options.runs, data=every_data(config, options.words)):
        checks.append(check)
        if not options.json:
            advice = f"  -> {check.advice}" if check.advice else ""
            print(f"{check.verdict:4}  {check.name:26} {check.found}{advice}")
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    return 1 if any(check.verdict == "fail" for check in checks) else 0

"""Check that this machine or cluster is ready for runs.

Examples:
  repro doctor
  repro doctor launcher=slurm --scale paper data.root=/data/imagenet
  repro doctor --data --scale paper data.root=/data/imagenet
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from repro.cli.completion import complete, config_overrides
from repro.cli.options import add_command, add_runs, add_scale


def add_parser(commands: Any) -> None:
    command = add_command(commands, "doctor", __doc__, run)
    text = "launcher=slurm data.root=/data/imagenet"
    complete(command.add_argument("words", nargs="*", metavar="OVERRIDES", help=text), config_overrides)
    add_scale(command)
    add_runs(command)
    text = "also decode every data file, and list those that cannot be read"
    command.add_argument("--data", action="store_true", help=text)
    command.add_argument("--json", action="store_true", help="print the checks as JSON")


def run(options: argparse.Namespace) -> int:
    """Print each check as it completes. The exit code is 1 if a check fails."""
    from repro.config.compose import compose
    from repro.config.data_roots import every_data
    from repro.launch.check import Check, by_check_name
    from repro.launch.doctor import data_files_check, examine

    config = compose([f"scale={options.scale}", *options.words])
    data = every_data(config, options.words)
    checks: list[Check] = []

    def results() -> Iterator[Check]:
        yield from examine(config, options.runs, data)
        failed = {check.name for check in checks if check.verdict == "fail"}
        for name, each in by_check_name(data).items() if options.data else ():
            if name in failed:
                yield Check(
                    f"{name} files", "fail", "none decoded, because the check of the data failed", "correct that"
                )
            else:
                yield from data_files_check(name, each, config.model)

    for check in results():
        checks.append(check)
        if not options.json:
            advice = f"  -> {check.advice}" if check.advice else ""
            print(f"{check.verdict:4}  {check.name:26} {check.found}{advice}")
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    return 1 if any(check.verdict == "fail" for check in checks) else 0

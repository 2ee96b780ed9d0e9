"""Print a shell completion script for commands, tables, rows and options.

Examples:
  eval "$(repro completion bash)"
  repro completion fish > ~/.config/fish/completions/repro.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from repro.cli.options import add_command
from repro.errors import UserError


def add_parser(commands: Any) -> None:
    command = add_command(commands, "completion", __doc__, run)
    command.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["repro"], shell=options.shell))
    return 0


Candidates = Callable[[str, argparse.Namespace], Iterable[str]]


def complete(argument: argparse.Action, *candidates: Candidates) -> None:
    """Complete an argument with candidates of these kinds; without any, the shell completes files."""

    def completer(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        with suppress(UserError):  # a table that cannot be read; the command itself reports it
            return [each for kind in candidates for each in kind(prefix, parsed_args)]
        return []

    argument.completer = completer  # type: ignore[attr-defined]


def every_table(_prefix: str, _options: argparse.Namespace) -> Iterable[str]:
    """The names of all tables."""
    from repro.tables.loader import table_names

    return table_names()


def rows_of_table(_prefix: str, options: argparse.Namespace) -> Iterable[str]:
    """The rows and row sets of the table that is typed before."""
    from repro.tables.loader import load_table

    table = load_table(options.table or "")
    return [*(row.id for row in table.every_row), *table.row_sets]


def every_row(_prefix: str, _options: argparse.Namespace) -> Iterable[str]:
    """The rows of all tables."""
    from repro.tables.loader import rows_by_name

    return rows_by_name()


def config_overrides(prefix: str, _options: argparse.Namespace) -> Iterable[str]:
    """The options of a group after `method=`, otherwise the groups."""
    from repro.locations import groups

    group, is_value, _value = prefix.partition("=")
    if is_value:
        return [f"{group}={option}" for option in groups().get(group, ())]
    return [f"{name}=" for name in groups()]

"""Print a shell completion script for commands, tables, rows and options.

Examples:
  eval "$(repro completion bash)"
  repro completion fish > ~/.config/fish/completions/repro.fish
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.options import add_command


def add_parser(commands: Any) -> None:
    command = add_command(commands, "completion", __doc__, run)
    command.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["repro"], shell=options.shell))
    return 0


def complete_table(**_: Any) -> list[str]:
    """Completions for a table."""
    from repro.tables.loader import table_names

    return list(table_names())


def complete_selection(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Completions for a row pattern or an override of a table's runs."""
    from repro.errors import UserError
    from repro.tables.loader import load_table

    try:
        table = load_table(parsed_args.table)
    except UserError:
        return []
    return [*(row.id for row in table.every_row), *table.row_sets, *complete_override(prefix)]


def complete_override(prefix: str, **_: Any) -> list[str]:
    """Completions for an override: `method=svite` if the group is typed, otherwise the groups."""
    from repro.locations import groups

    group, is_value, _value = prefix.partition("=")
    return (
        [f"{group}={option}" for option in groups().get(group, ())] if is_value else [f"{name}=" for name in groups()]
    )

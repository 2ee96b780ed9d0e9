"""Which runs a command is about: the words and options that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from repro.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from repro.launch.plan import PlannedRun
    from repro.rows import Table

DEFAULT_RUNS = Path("runs")
SCALES = ("paper", "local", "smoke")
SEEDS_HELP = "seeds 0 to N-1 (default: what the table says for the scale, or 1)"
# What makes a row that row, or has an option of its own: a table's runs may not have it otherwise.
SAID_BY_THE_ROW = (
    *("backbone", "backbone.name", "method", "method.name", "method.sparsity", "method.data_sparsity"),
    *("scale", "scale.name", "seed", "run.root"),
)


def add_selection(command: argparse.ArgumentParser, words: str | None = None) -> None:
    """Add table, rows, overrides, scale, seeds and where the records are."""
    command.add_argument("table")
    command.add_argument("words", nargs="*", metavar="ROWS_OR_OVERRIDES", help=words)
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--seeds", type=int, metavar="N", help=SEEDS_HELP)
    add_runs(command)


def add_runs(command: argparse.ArgumentParser, text: str = "where the records are (default runs/)") -> None:
    """Add where the records are."""
    command.add_argument("--runs", type=Path, default=DEFAULT_RUNS, help=text)


def split(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Row patterns and overrides: an override has an equals sign, a pattern never has. `seeds=3` is `--seeds 3`."""
    rows = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word]
    for word in [word for word in overrides if word.startswith("seeds=")]:
        overrides.remove(word)
        options.words.remove(word)  # it is said from here on by the option, which a command may change
        try:
            options.seeds = int(word.removeprefix("seeds="))
        except ValueError:
            raise UserError(f"{word}: how many seeds? seeds=3") from None
    if options.seeds is not None and options.seeds < 1:
        raise UserError(f"seeds={options.seeds}: at least one")
    for word in overrides:
        if word.partition("=")[0].lstrip("+") in SAID_BY_THE_ROW:
            raise UserError(f"{word}: the row or an option says that; choose rows by pattern, --scale, --seeds, --runs")
    return rows, overrides


def seeds_of(options: argparse.Namespace, table: Table) -> range:
    """The seeds asked for, or as many as the table has at this scale."""
    return range(options.seeds or table.default_seeds(options.scale))


def planned(options: argparse.Namespace) -> tuple[Table, list[PlannedRun]]:
    """The table and every run that the words and options name, after the runs that they begin with."""
    from repro.launch.plan import plan
    from repro.paper_tables import load_table

    table = load_table(options.table)
    rows, overrides = split(options)
    chosen, seeds = table.select(rows, options.scale), seeds_of(options, table)
    return table, plan(table, chosen, options.scale, seeds, options.runs, overrides)


def command_line(verb: str, options: argparse.Namespace, rows: Sequence[str] | None = None, *more: str) -> str:
    """A command about the same runs, to be pasted: with the scale, folder, seeds and overrides of this one.

    `rows` instead of the row patterns of this one; `more` options at the end.
    """
    import shlex

    said, overrides = split(options)
    words = [verb, options.table, *(said if rows is None else rows), "--scale", options.scale, *overrides]
    if options.seeds is not None and "--seed" not in more:
        words += ["--seeds", str(options.seeds)]
    if options.runs != DEFAULT_RUNS:
        words += ["--runs", str(options.runs)]
    return shlex.join([*_program(), *words, *more])


def _program() -> list[str]:
    """What the person has typed to get here: `repro`, .venv/bin/repro, python -m repro."""
    import shutil

    typed = Path(sys.argv[0])
    if typed.name != "repro":
        return [sys.executable, "-m", "repro"]
    found = shutil.which("repro")
    return ["repro"] if found is not None and Path(found).resolve() == typed.resolve() else [str(typed)]


def console() -> Console:
    """Where tables are printed."""
    from rich.console import Console

    # A log has no width of its own: wide enough for a table.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 150)

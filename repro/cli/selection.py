"""The runs that a command applies to: rows of a table at one scale, with seeds, overrides and the folder of records."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro.cli.completion import complete, config_overrides, every_table, rows_of_table
from repro.cli.options import add_runs, add_scale, announced, default_runs
from repro.errors import UserError, count_of

if TYPE_CHECKING:
    from repro.launch.plan import PlannedRun
    from repro.launch.status import RunStatus
    from repro.tables.rows import Row, Table

ROW_KEYS = (
    *("backbone", "backbone.name", "method", "method.name", "method.sparsity", "method.data_sparsity"),
    "experiment",  # it sets these keys, and those of the row would win
)
OPTION_OF_KEY = {
    "scale": "--scale NAME",
    "scale.name": "--scale NAME",
    "seed": "--seeds N (for the model of a single run: --seed N)",
    "run.root": "--runs DIR",
}


def add_selection(command: argparse.ArgumentParser, table_help: str = "name of a table (repro list)") -> None:
    """Add the table, row patterns and overrides, `--scale`, `--seeds` and `--runs`."""
    complete(command.add_argument("table", help=table_help), every_table)
    text = "row patterns ('deit_small/*' '!*/dense') and overrides (recipe.epochs=100)"
    words = command.add_argument("words", nargs="*", default=[], metavar="ROWS_OR_OVERRIDES", help=text)
    complete(words, rows_of_table, config_overrides)
    add_scale(command)
    text = "run seeds 0 to N-1 (default: the table's number of seeds at this scale, or 1)"
    command.add_argument("--seeds", type=int, metavar="N", help=text)
    add_runs(command)


@dataclass(frozen=True)
class Selection:
    """Rows of a table at one scale. `seed_count` is None where the table's default applies."""

    table: Table
    patterns: tuple[str, ...]
    overrides: tuple[str, ...]
    scale: str
    seed_count: int | None
    root: Path

    @property
    def seeds(self) -> range:
        """The seeds of each row."""
        return range(self.seed_count or self.table.default_seeds(self.scale))

    @property
    def rows(self) -> tuple[Row, ...]:
        """The selected rows. Raises `UserError` for a pattern that matches none."""
        return self.table.select(self.patterns, self.scale)

    @property
    def title(self) -> str:
        """`table1 at scale smoke`."""
        return f"{self.table.name} at scale {self.scale}"

    def plan(self, seeds: Sequence[int] | None = None, *, reads_data: bool = False) -> list[PlannedRun]:
        """The runs of the selected rows, each after the run whose weights it starts from.

        `reads_data` states whether the command reads the data sets and therefore needs their folders. Raises
        `UserError` if no row of the table is run at this scale.
        """
        rows, seeds = self.rows, self.seeds if seeds is None else seeds
        if not rows:
            raise UserError(f"{self.title}: no default row is run at this scale; choose another --scale")
        with announced(f"{self.title}: composing the configs of {count_of(len(rows), 'row')}"):
            from repro.config.data_roots import NO_FOLDER
            from repro.launch.plan import plan

            overrides = self.overrides if reads_data else (NO_FOLDER, *self.overrides)
            return plan(self.table, rows, self.scale, seeds, self.root, overrides)

    def selected_runs(self) -> list[PlannedRun]:
        """The runs of the selected rows alone.

        Other rows may wait for the runs that these start from. A run of another table may have the name of a selected
        row (`method.starts_from=table1/dense`).
        """
        selected = {(row.table, row.run_id) for row in self.rows}
        return [run for run in self.plan() if (run.row.table, run.row.id) in selected]

    def run_of_seed(self, seed: int | None) -> PlannedRun:
        """The run of the last selected row with a seed (default 0)."""
        return self.plan([seed or 0])[-1]  # the run that it starts from, if any, comes before it

    def logs_command(self, status: RunStatus) -> str:
        """The command that prints the output of a run, ready to paste."""
        return self.command("logs", [status.row], "--seed", str(status.seed))

    def command(self, verb: str, patterns: Sequence[str] | None = None, *options: str) -> str:
        """A command line for the same runs, ready to paste. `patterns` replaces the row patterns."""
        words = [verb, self.table.name, *(self.patterns if patterns is None else patterns), "--scale", self.scale]
        words += self.overrides
        if self.seed_count is not None and "--seed" not in options:
            words += ["--seeds", str(self.seed_count)]
        if self.root != default_runs():
            words += ["--runs", str(self.root)]
        return shlex.join([*program(), *words, *options])


def selection(options: argparse.Namespace) -> Selection:
    """The selection in parsed options.

    A word with `=`, or `~key`, is an override; any other word is a row pattern. `seeds=3` is the same as `--seeds 3`.
    Raises `UserError` for an override of a key that the row or an option sets.
    """
    from repro.tables.loader import load_table

    seed_count = options.seeds
    patterns, overrides = [], []
    for word in options.words:
        key, is_override, value = word.partition("=")
        if not is_override and not word.startswith(("+", "~")):
            patterns.append(word)
        elif key == "seeds":
            seed_count = _count(word, value)
        else:
            overrides.append(word)
    check_row_overrides(overrides)
    if seed_count is not None and seed_count < 1:
        raise UserError(f"seeds={seed_count}: at least 1")
    table = load_table(options.table)
    return Selection(table, tuple(patterns), tuple(overrides), options.scale, seed_count, options.runs)


def _count(word: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"{word}: not a number of seeds; write seeds=3") from None


def check_row_overrides(overrides: Iterable[str]) -> None:
    """Raise `UserError` for an override of a key that a row or an option of the command sets."""
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if key in ROW_KEYS:
            reason = ", which an experiment would change" if key == "experiment" else ""
            raise UserError(
                f"{word}: each row of a table sets its own backbone, method and sparsity{reason}; choose rows by name "
                "(repro list TABLE), or train a single run: repro train"
            )
        if key in OPTION_OF_KEY:
            raise UserError(f"{word}: use {OPTION_OF_KEY[key]}")


def program() -> list[str]:
    """Return the command that started this process: `repro`, `.venv/bin/repro`, `python -m repro`."""
    typed = Path(sys.argv[0])
    if typed.name != "repro":
        return [sys.executable, "-m", "repro"]
    found = shutil.which("repro")
    return ["repro"] if found is not None and Path(found).resolve() == typed.resolve() else [str(typed)]

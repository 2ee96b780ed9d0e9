"""Options that several commands share, and the console that they print to."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.locations import expand_home

if TYPE_CHECKING:
    from rich.console import Console

SCALES = ("paper", "mini", "local", "smoke")
LOG_WIDTH = 150  # columns, unless the variable COLUMNS is set; a file or pipe has no width of its own
TABLE_WIDTH = 1000  # so that no line of a table of runs wraps in a file or pipe


def add_command(
    commands: Any, name: str, doc: str | None, run: Callable[..., int] | None = None
) -> argparse.ArgumentParser:
    """Add a command to `commands`. The first line of the module's docstring is its help, the rest its description."""
    text = inspect.cleandoc(doc or "")
    summary = text.partition("\n")[0].rstrip(".")
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a misspelt --scal is an error
    )
    if run is not None:
        command.set_defaults(function=run)
    return command


def add_scale(command: argparse.ArgumentParser) -> None:
    """Add `--scale`."""
    command.add_argument("--scale", choices=SCALES, default="local", help="size of the runs (default local)")


def folder(text: str) -> Path:
    """The type of an option that names a file or folder; `~` is the home folder, also in `--runs '~/x'`."""
    return Path(expand_home(text))


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of an option that is an integer of at least `minimum`."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text}: must be an integer, at least {minimum}")
        return value

    return integer


def add_runs(command: argparse.ArgumentParser, text: str = "folder of the run records (default runs/)") -> None:
    """Add `--runs`."""
    command.add_argument("--runs", type=folder, metavar="DIR", help=text)


def default_runs() -> Path:
    """`run.root` of the site defaults, else `runs`."""
    from repro.config.site import site_defaults

    return Path(site_defaults().get("run.root", "runs"))


def add_reports(command: argparse.ArgumentParser, text: str = "folder of the reports (default reports/)") -> None:
    """Add `--reports`."""
    command.add_argument("--reports", type=folder, default=Path("reports"), metavar="DIR", help=text)


@contextmanager
def announced(text: str) -> Iterator[None]:
    """Show a line on the terminal during an operation that takes seconds, then remove it."""
    is_terminal = sys.stderr.isatty()
    if is_terminal:
        print(f"{text} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def set_threads(threads: int | None) -> None:
    """Set the CPU threads of torch; None and 0 leave them."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def console(log_width: int = 0) -> Console:
    """The console. If stdout is not a terminal, it is `log_width` wide; by default as COLUMNS says, or `LOG_WIDTH`."""
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    width = log_width or (int(columns) if columns.isdecimal() else 0) or LOG_WIDTH
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)

"""A view in the terminal that updates until Ctrl-C."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NoReturn

from rich.console import Console, RenderableType
from rich.live import Live

EVERY_S = 2.0
LINE_EVERY_S = 60.0  # if the output is no terminal
QUERY_EVERY_S = 15.0  # Slurm's controller serves other people too; records are files, read each time


def cached(query: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> Callable[..., Any]:
    """Renew the answer of a query every `QUERY_EVERY_S` seconds, and when the question has changed."""
    answer = functools.lru_cache(maxsize=1)(lambda _, *question: query(*question))
    return lambda *question: answer(clock() // QUERY_EVERY_S, *question)


def watch(view: Callable[[], RenderableType], console: Console) -> NoReturn:
    """Show `view` again every two seconds, or, if the output is no terminal, every minute."""
    if not console.is_terminal:
        while True:
            console.print(view())
            time.sleep(LINE_EVERY_S)
    with Live(view(), console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            time.sleep(EVERY_S)
            live.update(view(), refresh=True)

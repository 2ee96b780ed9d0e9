"""A view in the terminal that is refreshed until Ctrl-C."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NoReturn

from rich.console import Console, RenderableType
from rich.live import Live

EVERY_S = 2.0
LINE_EVERY_S = 60.0  # if the output is not a terminal
QUERY_EVERY_S = 15.0  # limits the load on Slurm's controller, which all users share


def cached(query: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> Callable[..., Any]:
    """Return `query` with its last result cached for up to `QUERY_EVERY_S` seconds, or until its arguments change."""
    answer = functools.lru_cache(maxsize=1)(lambda _, *args: query(*args))
    return lambda *args: answer(clock() // QUERY_EVERY_S, *args)


def watch(view: Callable[[], RenderableType], console: Console) -> NoReturn:
    """Show `view()` again every two seconds or, if the output is not a terminal, every minute."""
    if not console.is_terminal:
        while True:
            console.print(view())
            time.sleep(LINE_EVERY_S)
    with Live(view(), console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            time.sleep(EVERY_S)
            live.update(view(), refresh=True)

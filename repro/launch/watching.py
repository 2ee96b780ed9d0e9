"""A view that renews itself until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

EVERY_S = 2.0


def watch(view: Callable[[], RenderableType], console: Console) -> None:
    """Show `view` anew every two seconds. Where the output is no terminal, once a minute, one below the other."""
    if not console.is_terminal:
        while True:
            console.print(view())
            time.sleep(60)
    with Live(view(), console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            time.sleep(EVERY_S)
            live.update(view(), refresh=True)

"""A view that renews itself until Ctrl-C."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live

EVERY_S = 2.0
ASK_EVERY_S = 15.0  # the controller has other people to answer; records are files, and looked at each time
T = TypeVar("T")


class Asked(Generic[T]):
    """An answer that is asked for again after a while only. `at`: when it was asked for last, in Unix seconds."""

    def __init__(self, ask: Callable[..., T], every_s: float = ASK_EVERY_S) -> None:
        self._ask, self._every_s = ask, every_s
        self.at = 0.0
        self._answer: T
        self._question: tuple[Any, ...] | None = None
        self._due = -math.inf

    def __call__(self, *question: Any) -> T:
        """The answer, at most `every_s` seconds old."""
        if time.monotonic() >= self._due or question != self._question:
            self.at, self._question = time.time(), question
            self._answer = self._ask(*question)
            self._due = time.monotonic() + self._every_s
        return self._answer


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

"""Being asked to stop: Ctrl-C, a preemption, a time limit. The loop stops between two updates and saves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the terminal was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(Exception):
    """The run was asked to stop and has saved; it goes on from there when it is started again."""


class StopFlag:
    """Raised by a signal, looked at by the loop. A second Ctrl-C stops at once.

    `reason` says who asked: a signal's name, or `superseded`, which the heartbeat sets.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopFlag:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block a signal raises `Interrupted` where it arrives: nothing is there to save yet."""
        self._at_once = True
        try:
            if self.reason is not None:
                raise Interrupted(self.reason)
            yield
        finally:
            self._at_once = False

    def _raise(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
        if self._at_once:
            raise Interrupted(self.reason)

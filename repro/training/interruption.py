"""Being asked to stop: Ctrl-C, a preemption, a time limit. The loop stops between two updates and saves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the terminal was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
IGNORED_ON_REQUEST = (signal.SIGINT, signal.SIGHUP)  # by nohup, and by a shell script for what it starts with &


class Interrupted(Exception):
    """The run was asked to stop and has saved; it goes on from there when it is started again."""


@contextmanager
def held_back() -> Iterator[None]:
    """What is started within the block does not hear these signals before it listens: they wait for its `StopFlag`.

    Python, its imports and whatever stands between this process and that one would be killed by them, or drop them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopFlag:
    """Raised by a signal, looked at by the loop. A second Ctrl-C stops at once.

    `reason` says who asked first: a signal's name, or `superseded`, which the heartbeat sets. Signals that were held
    back arrive when it begins to listen. What this process was started to ignore stays ignored (nohup).
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopFlag:
        for number in SIGNALS:
            if not (number in IGNORED_ON_REQUEST and signal.getsignal(number) == signal.SIG_IGN):
                self._previous[number] = signal.signal(number, self._raise)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
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
        self.reason = self.reason or signal.Signals(number).name
        if self._at_once:
            raise Interrupted(self.reason)

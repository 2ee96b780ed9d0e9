"""Requests to stop a run: Ctrl-C, preemption, a time limit. The training loop saves and stops between two updates."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the terminal was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# If nohup, or a shell script that starts a command with &, ignores them.
IGNORED_ON_REQUEST = (signal.SIGINT, signal.SIGHUP)


class Interrupted(Exception):
    """The run was asked to stop. It resumes from its last checkpoint, if it has one, when it is started again."""


@contextmanager
def signals_blocked(signals: Iterable[int] = SIGNALS) -> Iterator[None]:
    """Block stop signals in processes that are started within the block, until they enter their `StopFlag`.

    Otherwise, a signal would kill Python during its imports, or be lost in an intermediate process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopFlag:
    """A flag that signals set and the training loop polls. A second Ctrl-C interrupts immediately.

    `reason` is the first request: a signal's name, or, set by the heartbeat, that a newer attempt has taken over.
    Blocked signals are delivered when the flag is entered. Signals that are ignored when the process starts (nohup)
    stay ignored.
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
        """Raise `Interrupted` as soon as a signal arrives within the block: for code with nothing to save yet."""
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

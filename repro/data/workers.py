"""Loader processes that leave signals to the training process, and leave with it."""

from __future__ import annotations

import atexit
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from repro.data.unfinished import UnfinishedBatch
from repro.errors import UserError

Batch = tuple[Tensor, Tensor]

# A preemption or a Ctrl-C reaches every process of a job. The training process saves and stops; a worker that ran its
# inherited handlers would save too, and one that died would fail the batch that the training process waits for.
LEFT_TO_TRAINING = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT, signal.SIGINT)


def ignore_signals(worker_id: int) -> None:
    """What a worker does first. (torch has set it to one thread by then.)"""
    for number in LEFT_TO_TRAINING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_TRAINING)


class Stream:
    """One pass over a `DataLoader` whose `worker_init_fn` is `ignore_signals`.

    Yields what the loader yields, views of images finished on `device`; a `UserError` that it yields is raised. `close`
    ends the workers.

    Attributes:
        waited_s: how long the training process has waited here for its batches so far, in seconds.
    """

    def __init__(self, loader: DataLoader[Any], device: torch.device | None = None) -> None:
        self.waited_s = 0.0
        self._device = device or torch.device("cpu")
        # Workers are forked with the signals held, so that none arrives before they have learnt to ignore it.
        with _held():
            self._batches: Any = iter(loader)
        self._has_workers = loader.num_workers > 0
        _open.add(self)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            raise StopIteration
        started = time.perf_counter()
        batch = next(self._batches)
        if isinstance(batch, UserError):
            self.close()
            raise batch
        images, labels = batch
        if isinstance(images, UnfinishedBatch):
            images = images.finished(self._device)
        self.waited_s += time.perf_counter() - started
        return images, labels

    def close(self) -> None:
        """End the workers and wait for them; nothing follows."""
        batches, self._batches = self._batches, None
        if batches is None or not self._has_workers:
            return
        # torch does this when its iterator is collected, which a traceback that is kept somewhere puts off for ever.
        batches._shutdown_workers()
        for worker in batches._workers:
            if worker.is_alive():  # stuck in a read; torch has sent it a SIGTERM, which it ignores
                worker.kill()
                worker.join()


@contextmanager
def _held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_TRAINING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_open: WeakSet[Stream] = WeakSet()


@atexit.register
def _close_all() -> None:
    # Python ends the children it finds at exit with SIGTERM, which these ignore, and then waits for them forever.
    for stream in list(_open):
        stream.close()

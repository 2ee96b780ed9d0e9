"""Loader workers that ignore signals meant for the training process, and end with it."""

from __future__ import annotations

import atexit
import signal
import time
from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from repro.data.shared_memory import is_shared_memory_error, shared_memory_error
from repro.data.uint8_batch import Uint8Batch
from repro.errors import UserError
from repro.interruption import signals_blocked

Batch = tuple[Tensor, Tensor]


class Batches(Protocol):
    """Batches that `num_workers` processes prepare: a `DataLoader`, or images in memory."""

    @property
    def num_workers(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


# A preemption or a Ctrl-C signals every process of a job. The training process saves and stops. A worker with the
# inherited handlers would save too, and one that died would fail the batch that the training process waits for.
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT, signal.SIGINT)


def ignore_signals(worker_id: int) -> None:
    """Ignore the signals of a preemption. This is the `worker_init_fn` of a `DataLoader` that a `Stream` iterates."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)


class Stream:
    """One pass over batches. A `DataLoader` needs `ignore_signals` as its `worker_init_fn`.

    A `Uint8Batch` is converted to floats on `device`, and a `UserError` in place of a batch is raised. `waited_s` is
    the time, in seconds, that the training process has waited for batches so far. Call `close` to stop before the end.
    """

    def __init__(self, loader: Batches, device: torch.device | None = None) -> None:
        self.waited_s = 0.0
        self._device = device or torch.device("cpu")
        # Workers are forked with these signals blocked, so that none arrives before they ignore them.
        with signals_blocked(_IGNORED):
            self._batches: Any = iter(loader)
        self._has_workers = loader.num_workers > 0
        _open.add(self)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            raise StopIteration
        started = time.perf_counter()
        try:
            batch = next(self._batches)
        except RuntimeError as error:
            if not is_shared_memory_error(error):
                raise
            batch = shared_memory_error()
        if isinstance(batch, UserError):
            self.close()
            raise batch
        images, labels = batch
        if isinstance(images, Uint8Batch):
            images = images.to_float(self._device)
        self.waited_s += time.perf_counter() - started
        return images, labels

    def close(self) -> None:
        """Stop the workers and wait for them. The stream then yields no more batches."""
        batches, self._batches = self._batches, None
        if batches is None or not self._has_workers:
            return
        # torch does this when its iterator is garbage-collected, which a reference in a traceback may prevent.
        batches._shutdown_workers()
        for worker in batches._workers:
            if worker.is_alive():  # it is blocked in a read, and ignores the SIGTERM that torch has sent
                worker.kill()
                worker.join()


_open: WeakSet[Stream] = WeakSet()


@atexit.register
def _close_all() -> None:
    # At exit, Python sends SIGTERM to its children, which workers ignore, and then waits for them forever.
    for stream in list(_open):
        stream.close()

"""Work shared between the processors there are: reading records and drawing figures is all processor time."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

T = TypeVar("T")
_NUMBER_BYTES = 2  # of a job's number: all of them fit into a pipe, which holds 64 KiB


def processors() -> int:
    """How many processes can be of use here: one where there are other threads.

    A forked copy has one thread alone, and the locks that the others held stay locked in it.
    """
    if not hasattr(os, "sched_getaffinity") or threading.active_count() > 1:
        return 1
    return len(os.sched_getaffinity(0))


def share(jobs: Sequence[Callable[[], T]], meanwhile: Callable[[], object] | None = None) -> list[T]:
    """What the jobs return, in their order. Raises what a job raises.

    Whoever is free takes the next one, so that long jobs belong in front. The other processes are copies of this one: a
    job needs nothing but what is in its memory, and what it returns can be pickled.

    Args:
        meanwhile: what this process alone has to do, before it takes its first job.
    """
    workers = min(len(jobs) + (meanwhile is not None), processors())
    if workers < 2:
        if meanwhile is not None:
            meanwhile()
        return [job() for job in jobs]
    context = multiprocessing.get_context("fork")
    waiting = _queue(len(jobs))
    others: list[tuple[BaseProcess, Connection]] = []
    for _ in range(1, workers):
        here, there = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(target=_work, args=(jobs, waiting, there))
        with warnings.catch_warnings():  # Python counts the idle threads of numpy's libraries, too
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        there.close()
        others.append((process, here))
    try:
        if meanwhile is not None:
            meanwhile()
        found = _outcomes(jobs, waiting)
    finally:
        os.close(waiting)
    for process, here in others:
        try:
            found |= here.recv()
        except EOFError:
            raise RuntimeError(f"a process that shared the work ended with {process.exitcode}") from None
        finally:
            process.join()
    return [_or_raise(found[place]) for place in range(len(jobs))]


def _queue(count: int) -> int:
    """The numbers of the jobs in a pipe, which every process reads from: each number is read once."""
    waiting, filled = os.pipe()
    with os.fdopen(filled, "wb") as stream:
        stream.writelines(place.to_bytes(_NUMBER_BYTES, "big") for place in range(count))
    return waiting


def _outcomes(jobs: Sequence[Callable[[], T]], waiting: int) -> dict[int, Any]:
    found: dict[int, Any] = {}
    while number := os.read(waiting, _NUMBER_BYTES):
        place = int.from_bytes(number, "big")
        found[place] = _outcome(jobs[place])
    return found


def _work(jobs: Sequence[Callable[[], T]], waiting: int, there: Connection) -> None:
    there.send(_outcomes(jobs, waiting))
    there.close()


class _Failed:
    """An error on its way to the process that asked."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _outcome(job: Callable[[], T]) -> T | _Failed:
    try:
        return job()
    except Exception as error:  # raised again by the process that asked
        return _Failed(error)


def _or_raise(outcome: Any) -> Any:
    if isinstance(outcome, _Failed):
        raise outcome.error
    return outcome

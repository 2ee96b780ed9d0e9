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


def processors() -> int:
    """How many processes can be of use here: one where there are other threads.

    A forked copy has one thread alone, and the locks that the others held stay locked in it.
    """
    if not hasattr(os, "sched_getaffinity") or threading.active_count() > 1:
        return 1
    return len(os.sched_getaffinity(0))


def share(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """What the jobs return, in their order. Raises what a job raises.

    The other processes are copies of this one: a job needs nothing but what is in its memory, and what it returns can be
    pickled.
    """
    workers = min(len(jobs), processors())
    if workers < 2:
        return [job() for job in jobs]
    found: dict[int, Any] = {}
    context = multiprocessing.get_context("fork")
    others: list[tuple[BaseProcess, Connection]] = []
    for worker in range(1, workers):
        here, there = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(target=_work, args=(jobs, range(worker, len(jobs), workers), there))
        with warnings.catch_warnings():  # Python counts the idle threads of numpy's libraries, too
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        there.close()
        others.append((process, here))
    for place in range(0, len(jobs), workers):
        found[place] = _outcome(jobs[place])
    for process, here in others:
        try:
            found |= here.recv()
        except EOFError:
            raise RuntimeError(f"a process that shared the work ended with {process.exitcode}") from None
        finally:
            process.join()
    return [_or_raise(found[place]) for place in range(len(jobs))]


def _work(jobs: Sequence[Callable[[], T]], places: Sequence[int], there: Connection) -> None:
    there.send({place: _outcome(jobs[place]) for place in places})
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

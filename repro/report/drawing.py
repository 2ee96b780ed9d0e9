"""Drawing several figures at once: it is all processor time, and most of a report's."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

Job = Callable[[], list[Path]]


def run_jobs(jobs: Sequence[Job]) -> list[Path]:
    """The files that the jobs write, in the order of the jobs, which are shared between the processors there are.

    The other processes are copies of this one: a job needs nothing but what is in its memory. A copy has this thread
    alone, and the locks that others held stay locked in it; so where there are other threads, this one does it all.
    Raises what a job raises.
    """
    workers = min(len(jobs), len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 1
    if workers < 2 or threading.active_count() > 1:
        return [path for job in jobs for path in job()]
    found: dict[int, list[Path] | Exception] = {}
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
            raise RuntimeError(f"a process that drew figures ended with {process.exitcode}") from None
        finally:
            process.join()
    return [path for place in range(len(jobs)) for path in _or_raise(found[place])]


def _work(jobs: Sequence[Job], places: Sequence[int], there: Connection) -> None:
    there.send({place: _outcome(jobs[place]) for place in places})
    there.close()


def _outcome(job: Job) -> list[Path] | Exception:
    try:
        return job()
    except Exception as error:  # raised again by the process that asked
        return error


def _or_raise(outcome: list[Path] | Exception) -> list[Path]:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome

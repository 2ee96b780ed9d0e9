"""Times two models alternately (A B A B): other load on the machine affects both alike, so their ratio is stable.

This module needs only torch, because `scripts/gpu_check` runs on machines where nothing else is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

MIN_PAIRS = 3


@torch.inference_mode()
def time_pairs(
    reference: nn.Module, model: nn.Module, images: Tensor, *, pairs: int, until: float, deadline: float
) -> tuple[tuple[float, float], ...]:
    """Return the seconds of one forward pass of each model, alternating, after one warm-up pair.

    Args:
        reference: Model that is timed first in each pair.
        model: Model that is timed second in each pair.
        images: Batch of shape (batch, channels, height, width) on the models' device, in their precision.
        pairs: Maximum number of pairs.
        until: Value of `time.monotonic()` after which no further pair is timed, once there are `MIN_PAIRS`.
        deadline: Value of `time.monotonic()` before which `MIN_PAIRS` have to end. If the warm-up shows that they would
            end later, nothing is timed and the result is empty.
    """
    clock = _cuda_seconds if images.device.type == "cuda" else _cpu_seconds

    def time_pair() -> tuple[float, float]:
        return clock(lambda: reference(images)), clock(lambda: model(images))

    started = time.monotonic()
    time_pair()
    now = time.monotonic()
    if now + MIN_PAIRS * (now - started) > deadline:
        return ()
    timed: list[tuple[float, float]] = []
    while len(timed) < pairs and (len(timed) < MIN_PAIRS or time.monotonic() < until):
        timed.append(time_pair())
    return tuple(timed)


def _cpu_seconds(work: Callable[[], object]) -> float:
    """Return the seconds of work on the CPU.

    With one thread, this is the thread's CPU time, which excludes the time in which another process has the core.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    work()
    return clock() - started


def _cuda_seconds(work: Callable[[], object]) -> float:
    """Return the seconds between two CUDA events around the work, which exclude the host."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000

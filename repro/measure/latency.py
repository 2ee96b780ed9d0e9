"""Two models timed in turn, A B A B: whatever else the machine does meets both alike, and the ratio stands."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

FEWEST_PAIRS = 3


@torch.inference_mode()
def time_in_turn(
    reference: nn.Module, other: nn.Module, images: Tensor, *, pairs: int, until: float, at_most_until: float
) -> tuple[tuple[float, float], ...]:
    """Seconds of one forward pass of each, `pairs` times in turn, after one unmeasured turn; empty where time is short.

    Args:
        images: (batch, channels, height, width) on the models' device, in their precision.
        until: `time.monotonic()` after which no further pair begins, once there are three.
        at_most_until: the same for the first three: where the unmeasured turn says that they would end later, there
            are none.
    """
    clock = _cuda_seconds if images.device.type == "cuda" else _cpu_seconds
    began = time.monotonic()
    for model in (reference, other):
        clock(lambda model=model: model(images))  # type: ignore[misc]
    now = time.monotonic()
    if now + FEWEST_PAIRS * (now - began) > at_most_until:
        return ()
    found: list[tuple[float, float]] = []
    while len(found) < pairs and (len(found) < FEWEST_PAIRS or time.monotonic() < until):
        found.append((clock(lambda: reference(images)), clock(lambda: other(images))))
    return tuple(found)


def _cpu_seconds(work: Callable[[], object]) -> float:
    """On one thread by the thread's own clock, which stands still while another process has the core."""
    now = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    started = now()
    work()
    return now() - started


def _cuda_seconds(work: Callable[[], object]) -> float:
    """By the GPU's own clock: the host only queues the work."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1000

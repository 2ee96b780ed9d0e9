"""A training step of the DeiT backbones on this CPU, relative to the released style and to dense training.

A step's limit is the time of its matrix products alone, each in its own shape and layout (`benchmarks.products`). It
distinguishes a target that no step can reach on this device from one that our step misses.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.cases import Case, Training
from benchmarks.composed import METHODS, published
from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds
from benchmarks.gpu_check.speed import FLOPS_PER_MAC, released
from benchmarks.products import Products

CPU = torch.device("cpu")
BATCHES = {"deit_tiny": 16, "deit_small": 16, "deit_base": 4}
ROUNDS = 3
SHARE_OF_LIMIT = 0.95  # the goal in float32
WITH_AMX = {"deit_tiny": 2.6, "deit_small": 3.0, "deit_base": 2.8}  # goals in bfloat16, times the released style's
DTYPES = {"none": "float32", "bfloat16": "bfloat16"}
SLOWER_PCT, SPARSE_BATCH = 1.0, 4
SAME_SHAPES, SPARSE_ROUNDS = ("svite", "s2vite"), 15


def has_amx() -> bool:
    """Whether the CPU multiplies bfloat16 tiles: the targets in mixed precision apply only there."""
    return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8") if os.path.exists("/proc/cpuinfo") else False


def steps() -> Iterator[Figure]:
    """Time our step with SViTE, in float32 and bfloat16, in turn with the released style in float32, by backbone."""
    for backbone, batch in BATCHES.items():
        case = published(backbone, "svite")
        for amp in DTYPES:
            yield _against_released(case, batch, amp, WITH_AMX[backbone])


def _against_released(case: Case, batch: int, amp: str, with_amx: float) -> Figure:
    slow = released(case, CPU, batch, amp=False)
    fast = Training(case, CPU, batch=batch, amp=amp)
    pairs = in_turn(slow, fast.update, ROUNDS)
    theirs, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    least_s = products_s(case, batch, amp)
    ratio, limit = median_ratio(pairs), theirs / least_s
    if amp == "none":
        target, goal = f"at least {SHARE_OF_LIMIT:g} of the limit", SHARE_OF_LIMIT * limit
    elif has_amx():
        target, goal = f"at least {with_amx:g}", with_amx
    else:
        target, goal = f"– (at least {with_amx:g} with AMX)", None
    if ratio > limit:
        raise RuntimeError(
            f"{case.name}, {amp}: measured {ratio:.2f} is above its limit {limit:.2f}: the limit is wrong"
        )
    flops = FLOPS_PER_MAC * case.macs_g * 1e9 * batch
    return Figure(
        f"{case.name}, {DTYPES[amp]}, batch {batch}: training step, times the released style's speed",
        target,
        f"{ratio:.2f} (limit here {limit:.2f}; {100 * least_s / ours:.0f} % of the limit)",
        None if goal is None else ratio >= goal,
        {
            "released_ms": milliseconds([first for first, _ in pairs]),
            "ours_ms": milliseconds([second for _, second in pairs]),
            "products_ms": milliseconds([least_s])[0],
            "dense_gflops": round(flops / ours / 1e9, 1),
            "limit": round(limit, 3),
        },
    )


def products_s(case: Case, batch: int, amp: str) -> float:
    """Return the mean time of an update's matrix products in seconds, each in the fastest available way."""
    twin = Training(case, CPU, batch=batch, amp=amp)
    twin.update()
    products = Products()
    with products:
        for _ in range(ROUNDS):
            twin.update()
    return products.least_s() / ROUNDS


class _Clocked:
    """Sums the time that the hooks of a method's parts take in a step."""

    def __init__(self, training: Training) -> None:
        self.seconds = 0.0
        for part in training.state.parts:
            for hook in ("before_update", "after_backward", "after_step"):
                setattr(part, hook, self._timed(getattr(part, hook)))

    def _timed(self, hook):  # type: ignore[no-untyped-def]
        def timed(update: int) -> None:
            started = time.perf_counter()
            hook(update)
            self.seconds += time.perf_counter() - started

        return timed


def sparse() -> Iterator[Figure]:
    """Measure what a method adds to a dense DeiT-Small step: its hooks, timed alone in the second update.

    On a shared CPU, the difference between two steps cannot be measured to within 1 %, but the hooks alone can. A token
    method has another model: its whole step is compared with the dense one.
    """
    dense = Training(published("deit_small", "dense"), CPU, batch=SPARSE_BATCH, amp="none")
    for name in METHODS:
        if name == "dense":
            continue
        case = published("deit_small", name)
        training = Training(case, CPU, batch=SPARSE_BATCH, amp="none")
        clock = _Clocked(training)
        training.update()
        clock.seconds = 0.0
        started = time.perf_counter()
        training.update()
        step_s = time.perf_counter() - started
        started = time.perf_counter()
        dense.update()
        dense_s = time.perf_counter() - started
        # One update processes a whole global batch: hooks run once, forward and backward once per micro-batch.
        micros = case.length.global_batch / SPARSE_BATCH
        added_pct = 100 * clock.seconds / (micros * (step_s - clock.seconds))
        has_other_model = any(target.startswith("repro.methods.tokens.") for target, _ in case.parts)
        yield Figure(
            f"{case.name}: added by its masks to an update of {case.length.global_batch} images",
            f"at most {SLOWER_PCT:g} %",
            f"{added_pct:.2f} % ({1000 * clock.seconds:.1f} ms an update); forward and backward "
            f"{(step_s - clock.seconds) / dense_s:.2f} of the dense step"
            + (", fewer tokens" if has_other_model else ""),
            added_pct <= SLOWER_PCT,
            {"hooks_ms": 1000 * clock.seconds, "step_ms": 1000 * step_s, "dense_step_ms": 1000 * dense_s},
        )


def whole_updates() -> Iterator[Figure]:
    """Measure a whole update, with masks updated on schedule, relative to dense, for methods that keep all shapes."""
    dense = Training(published("deit_small", "dense"), CPU, batch=SPARSE_BATCH, amp="none")
    for name in SAME_SHAPES:
        case = published("deit_small", name)
        training = Training(case, CPU, batch=SPARSE_BATCH, amp="none")
        clock = _Clocked(training)
        masks_s: list[float] = []

        def update(training: Training = training, clock: _Clocked = clock, masks_s: list[float] = masks_s) -> None:
            clock.seconds = 0.0
            training.update()
            masks_s.append(clock.seconds)

        pairs = in_turn(update, dense.update, SPARSE_ROUNDS)
        schedule = next(given["schedule"] for _, given in case.parts if "schedule" in given)
        training.state.update = schedule.interval - 1
        update()
        *applying, moving_s = masks_s
        applying_s = statistics.median(applying)
        # An update of the global batch applies masks once; so does the one that is timed.
        micros = case.length.global_batch / SPARSE_BATCH
        each_s = applying_s + (moving_s - applying_s) / schedule.interval
        ratios = [
            (sparse_s - own_s + each_s / micros) / dense_s
            for (sparse_s, dense_s), own_s in zip(pairs, applying[1:], strict=True)
        ]
        low, middle, high = statistics.quantiles(ratios, n=4)
        yield Figure(
            f"{case.name}: an update of {case.length.global_batch} images, times the dense one's time, in turn",
            f"at most {1 + SLOWER_PCT / 100:g}",
            f"{middle:.3f} (quartiles {low:.3f} to {high:.3f}; masks move every {schedule.interval} updates, in "
            f"{1000 * moving_s:.0f} ms)",
            middle <= 1 + SLOWER_PCT / 100,
            {
                "sparse_ms": milliseconds([first for first, _ in pairs]),
                "dense_ms": milliseconds([second for _, second in pairs]),
                "applying_ms": 1000 * applying_s,
                "moving_ms": 1000 * moving_s,
                "interval": schedule.interval,
            },
        )

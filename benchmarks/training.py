"""A training step of the DeiT backbones on this CPU: against the released style, and against dense.

A step's limit is the time of its matrix products at the rate that the device reaches in them alone: with that beside
the ratio, a target that this device cannot meet can be told from one that we miss.
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
from benchmarks.gpu_check.speed import FLOPS_PER_MAC, matmul_rate, released

CPU = torch.device("cpu")
BATCHES = {"deit_tiny": 16, "deit_small": 16, "deit_base": 4}
ROUNDS = 3
TARGETS = {"none": 1.35, "bfloat16": 2.6}
DTYPES = {"none": "float32", "bfloat16": "bfloat16"}
SLOWER_PCT, SPARSE_BATCH = 1.0, 4
SAME_SHAPES, SPARSE_ROUNDS = ("svite", "s2vite"), 15


def rates() -> dict[str, float]:
    """FLOP/s of this CPU's own matrix products, by `amp`."""
    return {amp: matmul_rate(CPU, getattr(torch, dtype), 2048) for amp, dtype in DTYPES.items()}


def has_amx() -> bool:
    """Whether the CPU multiplies bfloat16 tiles: the target in mixed precision is for those that do."""
    return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8") if os.path.exists("/proc/cpuinfo") else False


def steps() -> Iterator[Figure]:
    """Ours, float32 and bfloat16, in turn with the released style in float32, on each backbone, with SViTE's masks."""
    measured = rates()
    for amp, rate in measured.items():
        yield Figure(f"matrix products in {DTYPES[amp]}", "–", f"{rate / 1e9:.0f} GFLOP/s", None, {"size": 2048})
    for backbone, batch in BATCHES.items():
        case = published(backbone, "svite")
        for amp in DTYPES:
            yield _against_released(case, batch, amp, measured)


def _against_released(case: Case, batch: int, amp: str, measured: dict[str, float]) -> Figure:
    slow = released(case, CPU, batch, amp=False)
    fast = Training(case, CPU, batch=batch, amp=amp)
    pairs = in_turn(slow, fast.update, ROUNDS)
    ratio = median_ratio(pairs)
    theirs, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    flops = FLOPS_PER_MAC * case.macs_g * 1e9 * batch
    least_s = flops / measured[amp]
    has_target = amp == "none" or has_amx()
    return Figure(
        f"{case.name}, {DTYPES[amp]}, batch {batch}: training step, times the released style's speed",
        f"at least {TARGETS[amp]:g}" if has_target else f"– (at least {TARGETS[amp]:g} with AMX)",
        f"{ratio:.2f} (limit here {theirs / least_s:.2f}; {100 * least_s / ours:.0f} % of the device's products)",
        ratio >= TARGETS[amp] if has_target else None,
        {
            "released_ms": milliseconds([first for first, _ in pairs]),
            "ours_ms": milliseconds([second for _, second in pairs]),
            "model_flops_utilisation": round(least_s / ours, 4),
            "released_flops_utilisation": round(least_s / theirs, 4),
            "limit": round(theirs / least_s, 3),
        },
    )


class _Clocked:
    """Adds up how long the hooks of a method's parts take in a step."""

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
    """What a method adds to a dense DeiT-Small step: its hooks, timed alone in the second update, per global batch.

    A difference of two steps cannot be told to 1 % on a shared CPU, the hooks alone can. The token methods' model is
    another one: of those the whole step is timed, in turn with the dense one.
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
        # One update is a whole global batch: hooks run once in it, forward and backward for each micro-batch.
        micros = case.length.global_batch / SPARSE_BATCH
        added_pct = 100 * clock.seconds / (micros * (step_s - clock.seconds))
        has_other_model = any(target.startswith("repro.tokens.") for target, _ in case.parts)
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
    """A whole update of a method that changes no shape, its masks moved when they are due, over the dense one's."""
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
        # In an update of the global batch masks are applied once, in the one that is timed, too.
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

"""How fast the device trains and infers: against its own matrix products, the released style, and dense."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from benchmarks.cases import Case, Training
from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds, time_per_macs
from benchmarks.released_step import ReleasedStep
from repro.inference.shrink import Sizes, block_sizes, resize
from repro.methods.base import attach
from repro.models.vit import build_vit
from repro.timing.latency import time_pairs

FASTER, SLOWER = 2.0, 1.01
ROUNDS, UPDATES = 5, 5
# A training step is a forward pass and two of its kind backward; a MAC is two operations.
FLOPS_PER_MAC = 3 * 2


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """The device's own rate in FLOP/s: the fastest of ten square products of noise."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for number in range(12):
        finish(device)
        started = time.perf_counter()
        torch.mm(left, right)
        finish(device)
        if number >= 2:
            seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def released(case: Case, device: torch.device, batch: int, amp: bool) -> Callable[[], object]:
    """A step of the released style for a case: the masks of its first part, on images of noise."""
    made = Training(case, device, batch=batch)
    masks = getattr(made.state.parts[0], "masks", None) if made.state.parts else None
    recipe, classes = case.recipe, case.geometry["num_classes"]
    geometry: Any = SimpleNamespace(**case.geometry)
    model = build_vit(geometry, recipe["drop_path"], 0).to(device).train()
    mixup = Mixup(
        mixup_alpha=recipe["mixup"],
        cutmix_alpha=recipe["cutmix"],
        switch_prob=recipe["mixup_switch_prob"],
        label_smoothing=recipe["label_smoothing"],
        num_classes=classes,
    )
    kept = {name: masks[name] for name in masks.layers} if masks is not None else {}
    step = ReleasedStep(model, SoftTargetCrossEntropy(), mixup, kept, amp=amp)
    images = torch.randn(batch, *case.image_shape, device=device)
    labels = torch.randint(classes, (batch,), device=device)
    return lambda: step(images, labels)


def several(action: Callable[[], object], device: torch.device, times: int) -> Callable[[], None]:
    """Return an action that runs `action` several times, then waits for the device."""

    def run() -> None:
        for _ in range(times):
            action()
        finish(device)

    return run


def against_released(
    case: Case, device: torch.device, batch: int, compiler: str | None, products_per_s: float, updates: int
) -> Iterator[Figure]:
    """Ours (bfloat16, fused, compiled) against the released style in the same mixed precision, and in float32.

    `products_per_s`: FLOP/s of the device's own products in bfloat16.
    """
    ours = Training(case, device, batch=batch, amp="bfloat16", compiler=compiler)
    fast = several(ours.update, device, updates)
    for amp in (True, False):
        slow = several(released(case, device, batch, amp), device, updates)
        pairs = in_turn(slow, fast, ROUNDS)
        ratio = median_ratio(pairs)
        images_per_s = batch * updates / statistics.median(second for _, second in pairs)
        used = FLOPS_PER_MAC * case.macs_g * 1e9 * images_per_s / products_per_s
        yield Figure(
            f"{case.name}: training step, times the released style's in {'bfloat16' if amp else 'float32'}",
            f"at least {FASTER:g}" if amp else "–",
            f"{ratio:.2f} ({images_per_s:.0f} images/s, {100 * used:.0f} % of the device's bfloat16 products)",
            ratio >= FASTER if amp else None,
            {
                "released_ms": milliseconds([first / updates for first, _ in pairs]),
                "ours_ms": milliseconds([second / updates for _, second in pairs]),
                "batch": batch,
                "compiler": compiler,
                "model_flops_utilisation": round(used, 4),
            },
        )
        del slow
        tidy(device)


def against_dense(
    dense: Case, case: Case, device: torch.device, batch: int, compiler: str | None, updates: int
) -> Iterator[Figure]:
    """A method's step against the dense one in the same settings, and its peak memory."""
    trainings, peaks = [], []
    for one in (dense, case):
        tidy(device)
        before = _allocated(device)
        trainings.append(Training(one, device, batch=batch, amp="bfloat16", compiler=compiler))
        several(trainings[-1].update, device, 2)()
        peaks.append(_peak(device) - before)
    whole, sparse = (several(training.update, device, updates) for training in trainings)
    pairs = in_turn(sparse, whole, ROUNDS)
    ratio = median_ratio(pairs)
    yield Figure(
        f"{case.name}: training step, time over the dense one's",
        f"at most {SLOWER:g}",
        f"{ratio:.3f}" + (f", peak memory {peaks[1] / peaks[0]:.3f} of the dense one's" if peaks[0] else ""),
        ratio <= SLOWER,
        {
            "sparse_ms": milliseconds([first / updates for first, _ in pairs]),
            "dense_ms": milliseconds([second / updates for _, second in pairs]),
            "peak_bytes": {"dense": peaks[0], "sparse": peaks[1]},
            "batch": batch,
        },
    )


def time_column(made: Mapping[str, Any], device: torch.device, batch: int) -> Iterator[Figure]:
    """Time saved in inference for the MACs saved, of a row whose model is physically smaller."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    geometry: Any = SimpleNamespace(**made["geometry"])
    dense, small = (build_vit(geometry, 0.0, 0) for _ in range(2))
    _make_smaller(small, made)
    dense, small = (model.to(device, dtype).eval() for model in (dense, small))
    images = torch.randn(batch, geometry.in_chans, geometry.image_size, geometry.image_size).to(device, dtype)
    now = time.monotonic()
    pairs = time_pairs(dense, small, images, pairs=2 * ROUNDS, until=now + 20, deadline=now + 60)
    if not pairs:
        raise RuntimeError(f"{made['row']}: three turns would take more than a minute; lower --batch")
    macs = (made["dense_macs_g"], made["macs_g"])
    details = {"published_time_saving_pct": made["published_time_saving_pct"], "batch": batch}
    yield time_per_macs(f"{made['row']}, inference", pairs, macs, made["target"], details)


def _make_smaller(model: nn.Module, made: Mapping[str, Any]) -> None:
    if made["selector"] is not None:
        attach([(made["selector"]["target"], made["selector"]["arguments"])], model)[0].apply_planned_cost()
    if made["units"] is not None:
        depth = len(block_sizes(model).heads)
        resize(model, Sizes((made["units"]["heads"],) * depth, (made["units"]["neurons"],) * depth))


def tidy(device: torch.device) -> None:
    """Free unused memory and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0

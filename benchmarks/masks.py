"""The cost of masks on DeiT-Small: applying them, updating them, and their memory."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds
from repro.config.compose import compose
from repro.counting.schedule import UpdateSchedule
from repro.methods.base import MethodPart
from repro.methods.weights.s2vite import S2ViTE
from repro.methods.weights.svite import SViTE, exchange
from repro.models.backbone import build_model

BATCH = 16
SPARSITY = 0.5
ROUNDS = 7
ALWAYS = UpdateSchedule(interval=1, end=1_000_000, total=1_000_001)
STEPS_IN_CHILD = 2
METHODS = ("dense", "svite", "s2vite fresh", "s2vite as_released")
MEMORY_ROUNDS = 2
# Large tensors get pages of their own, which are returned when they are freed. Resident memory is then what is in use,
# without what the allocator keeps for later, which varies between runs by more than the size of all masks.
TIDY_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}


def deit_small() -> nn.Module:
    """Build DeiT-Small as in table 1."""
    return build_model(compose(["backbone=deit_small"]).backbone.paper, 0.0, 0)


def training_step(model: nn.Module) -> Callable[[], None]:
    """Return a dense training step (forward, backward, AdamW) on images of random noise."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.randint(0, 1000, (BATCH,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def svite(model: nn.Module, schedule: UpdateSchedule = ALWAYS) -> SViTE:
    """Return SViTE at 50 % sparsity, with table 1's options."""
    return SViTE(
        model,
        sparsity=SPARSITY,
        distribution="erk",
        prune="magnitude",
        growth="gradient",
        decay="as_paper",
        update_fraction=0.5,
        schedule=schedule,
        seed=0,
    )


def applying() -> Figure:
    """Time applying the masks after a step, relative to the step."""
    model = deit_small()
    part = svite(model)
    step = training_step(model)
    pairs = in_turn(part.masks.apply, step, ROUNDS)
    ratio = 100 * median_ratio(pairs)
    return Figure(
        f"masks applied, share of a dense training step (batch {BATCH})",
        "at most 0.4 %",
        f"{ratio:.2f} %",
        ratio <= 0.4,
        {
            "apply_ms": milliseconds([first for first, _ in pairs]),
            "step_ms": milliseconds([second for _, second in pairs]),
        },
    )


def sorted_update(weight: Tensor, grad: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """Update a mask with two full sorts, as the released code does; ties are broken by position."""
    count = math.ceil(fraction * int(mask.sum()))
    places = mask.flatten()
    order = torch.sort(torch.where(places, weight.abs().flatten(), math.inf), stable=True).indices
    kept = places.clone()
    kept[order[:count]] = False
    order = torch.sort(torch.where(kept, -1.0, grad.abs().flatten()), stable=True, descending=True).indices
    kept[order[:count]] = True
    return kept.view_as(mask)


def moving() -> Figure:
    """Time a mask update of all layers, relative to two full sorts per layer and nothing else."""
    model = deit_small()
    part = svite(model)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)
    weights = part.masks.weights
    fraction = 0.5
    same = all(
        torch.equal(
            exchange(part.masks[name], weight.detach().abs(), _grad(weight).abs(), fraction),
            sorted_update(weight.detach(), _grad(weight), part.masks[name], fraction),
        )
        for name, weight in weights.items()
        if part.masks.active_by_layer[name] < weight.numel()
    )
    assert same, "another result than by full sorts"

    def sorts() -> None:
        for weight in weights.values():
            torch.sort(weight.detach().abs().flatten())
            torch.sort(_grad(weight).abs().flatten())

    pairs = in_turn(sorts, lambda: part.after_step(1), 5)
    ratio = median_ratio(pairs)
    return Figure(
        "mask update of all layers, times faster than two full sorts per layer, same result",
        "at least 5",
        f"{ratio:.1f}",
        ratio >= 5,
        {
            "sorts_ms": milliseconds([first for first, _ in pairs]),
            "update_ms": milliseconds([second for _, second in pairs]),
        },
    )


def _grad(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def memory() -> list[Figure]:
    """Measure the peak memory of a training process above that of dense training, in bytes per masked weight."""
    peaks: dict[str, list[int]] = {name: [] for name in METHODS}
    for _ in range(MEMORY_ROUNDS):
        for name in peaks:
            command = [sys.executable, "-m", "benchmarks.masks", name, str(torch.get_num_threads())]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, **TIDY_MALLOC}
            )
            peaks[name].append(int(done.stdout))
    masked = sum(weight.numel() for weight in svite(deit_small()).masks.weights.values())
    figures = []
    for name in list(peaks)[1:]:
        above = [(peak - dense) / masked for peak, dense in zip(peaks[name], peaks["dense"], strict=True)]
        middle = statistics.median(above)
        figures.append(
            Figure(
                f"peak memory above dense training, {name}, bytes per masked weight",
                "at most 1",
                f"{middle:.2f}",
                round(middle, 2) <= 1,
                {"above": [round(value, 3) for value in above], "dense_mib": [p >> 20 for p in peaks["dense"]]},
            )
        )
    return figures


def part_of(name: str, model: nn.Module) -> MethodPart:
    """Return the method that a child process trains with; masks change in every update."""
    if name == "dense":
        return MethodPart()
    if name == "svite":
        return svite(model)
    return S2ViTE(
        model,
        sparsity=0.4,
        heads_density=0.7,
        neurons_density=0.6,
        growth=name.split()[1],
        decay="as_paper",
        update_fraction=0.5,
        schedule=ALWAYS,
        seed=0,
    )


def train(model: nn.Module, part: MethodPart, images: Tensor) -> None:
    """Run some steps, each with a mask update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = torch.randint(0, 1000, (len(images),))
    for update in range(1, STEPS_IN_CHILD + 1):
        optimizer.zero_grad(set_to_none=True)
        part.before_update(update)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        part.after_step(update)


def train_and_print_peak(name: str) -> None:
    """Run in a child process: train and print the peak resident size in bytes."""
    torch.manual_seed(0)
    # First run every method on one block of the real width, even in the dense child: the code of torch's kernels also
    # becomes resident, at its first use.
    geometry = compose(["backbone=deit_small"]).backbone.paper
    tiny = geometry.model_copy(update={"depth": 1, "image_size": 32})
    for other in METHODS:
        small = build_model(tiny, 0.0, 0)
        train(small, part_of(other, small), torch.randn(2, 3, 32, 32))
    model = deit_small()
    train(model, part_of(name, model), torch.randn(BATCH, 3, 224, 224))
    # Not getrusage: its peak is inherited from the parent through exec.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    print(int(peak) * 1024)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    train_and_print_peak(sys.argv[1])

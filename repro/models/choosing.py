"""How each layer of a finished sparse model computes, and whether it is made smaller: by measurement.

What wins depends on the device, the batch and how the zeros lie; nobody can tell without measuring. So every kernel
that a layer has is timed against the dense one, in turn, on the device at hand, and taken only where it wins; the whole
model is then timed in the same way, and what would slow it is left out.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro.models.kernels import (
    KERNELS,
    Layer,
    apply_kernels,
    as_linear,
    densities,
    density,
    has_kernel,
    in_place_of,
    sparse_layers,
)
from repro.runs.provenance import cpu_name

PAIRS = 5
PAIRS_AGAIN = 9  # of the winner: that it came first was luck in part
# A kernel must win by more than timing can be wrong by.
LEAST_GAIN = 0.03
# What a finished model may take at most, over the masked one.
SLOWEST = 1.02
# How far its logits may be from the masked one's: kernels add up in another order.
KERNEL_TOLERANCE = 1e-3
MASKED, SMALLER, WITH_KERNELS = "masked", "smaller", "with_kernels"


@dataclass(frozen=True)
class Choice:
    """What a layer computes with, and the medians of its time over the dense one's for each kernel that was tried."""

    layer: str
    density: float
    kernel: str
    time_over_dense: Mapping[str, float]


class Nothing(nn.Module):
    """A linear layer that costs nothing: what is left of a model's time is what stays dense."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features = linear.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """Zeros of the right shape, without memory of their own."""
        return inputs.new_zeros(()).expand(*inputs.shape[:-1], self.out_features)


@torch.inference_mode()
def choose(model: nn.Module, images: Tensor, tell: Callable[[str], None] = lambda _: None) -> list[Choice]:
    """Time every kernel of the sparse layers on inputs of the size they see with `images`; the model is not changed.

    Layers of one shape whose zeros lie alike (to one digit of their densities) share one measurement; each takes of it
    the fastest kernel that it can have itself.
    """
    layers = dict(sparse_layers(model))
    sizes = _input_sizes(model, layers, images)
    choices: list[Choice] = []
    known: dict[tuple[object, ...], dict[str, float]] = {}
    for number, (name, layer) in enumerate(layers.items(), 1):
        weight = as_linear(layer).weight
        alike = (type(layer), sizes[name], weight.shape, *(f"{share:.1g}" for share in densities(weight)))
        if alike not in known:
            inputs = torch.randn(sizes[name], dtype=images.dtype, device=images.device)
            known[alike] = dict(_ratios(layer, inputs))
        ratios = known[alike]
        won = sorted((ratio, kernel) for kernel, ratio in ratios.items() if ratio <= 1 - LEAST_GAIN)
        best = next((kernel for _, kernel in won if has_kernel(layer, kernel)), "dense")
        choices.append(Choice(name, density(layer), best, ratios))
        tell(f"{number} of {len(layers)} layers: {name}, density {choices[-1].density:.3f}: {best}")
    return choices


def _input_sizes(model: nn.Module, layers: Mapping[str, Layer], images: Tensor) -> dict[str, torch.Size]:
    sizes: dict[str, torch.Size] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: sizes.__setitem__(name, inputs[0].shape))
        for name, layer in layers.items()
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def _ratios(layer: Layer, inputs: Tensor) -> Iterator[tuple[str, float]]:
    for name, build in KERNELS.items():
        linear = build(as_linear(layer))
        if linear is None:
            continue
        module = in_place_of(layer, linear)
        _seconds(module, inputs)  # compiles, and wakes caches
        pairs = []
        for _ in range(PAIRS):
            pairs.append(_seconds(module, inputs) / _seconds(layer, inputs))
            if pairs[0] > 2:
                break  # no further turn can make it the fastest
        yield name, statistics.median(pairs)


def _seconds(module: nn.Module, inputs: Tensor) -> float:
    on_gpu = inputs.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    module(inputs)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


@torch.inference_mode()
def measured(
    masked: nn.Module, small: nn.Module, images: Tensor, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The fastest form of a finished model on the device at hand, as it is written into an export.

    Args:
        masked: the model with full matrices, which everything is compared with.
        small: the same model, physically smaller; not changed.
        images: (batch, channels, height, width), on the models' device, in their precision.

    Returns:
        `form`: `with_kernels`, `smaller` (all layers dense), or `masked` where both are more than 2 % slower than it;
        `layers`: the kernel of each layer that is not dense; `tried`: times over dense; `time_over_masked`: of each
        form, and of the chosen one timed `again`; `limit_over_masked`: with sparse layers that take no time at all;
        `largest_logit_difference`: of the model with kernels. And device, threads, batch, dtype.
    """
    choices = choose(small, images, tell)
    layers = {choice.layer: choice.kernel for choice in choices if choice.kernel != "dense"}
    forms = {MASKED: masked, SMALLER: small}
    difference = None
    if layers:
        fast = apply_kernels(copy.deepcopy(small), layers)
        difference = float((logits_of(fast, images) - logits_of(masked, images)).abs().max())
        if difference <= KERNEL_TOLERANCE:
            forms[WITH_KERNELS] = fast
        else:
            tell(
                f"with kernels logits are off by {difference:.2g} (at most {KERNEL_TOLERANCE:g}): all layers stay dense"
            )
    ratios = {name: _whole_ratio(form, masked, images, PAIRS) for name, form in forms.items() if name != MASKED}
    # Of two that are as fast the smaller one is taken: the masked one waits until the others have proved too slow.
    order = [*sorted(ratios, key=lambda name: ratios[name]), MASKED]
    form, again = _first_fast_enough(order, forms, images, tell)
    return {
        "form": form,
        "layers": layers if form == WITH_KERNELS else {},
        "tried": {
            choice.layer: {name: round(r, 3) for name, r in choice.time_over_dense.items()} for choice in choices
        },
        "time_over_masked": {**{name: round(ratio, 4) for name, ratio in ratios.items()}, "again": round(again, 4)},
        "limit_over_masked": round(limit(small, masked, images), 4),
        "largest_logit_difference": difference,
        "device": cpu_name() if images.device.type == "cpu" else torch.cuda.get_device_name(images.device),
        "threads": torch.get_num_threads() if images.device.type == "cpu" else None,
        "batch": len(images),
        "dtype": str(images.dtype).removeprefix("torch."),
    }


def _first_fast_enough(
    order: list[str], forms: Mapping[str, nn.Module], images: Tensor, tell: Callable[[str], None]
) -> tuple[str, float]:
    """The first of these forms that keeps the bound when it is timed again, and what it took."""
    for name in order:
        if name == MASKED:
            break
        again = _whole_ratio(forms[name], forms[MASKED], images, PAIRS_AGAIN)
        if again <= SLOWEST:
            return name, again
        tell(f"{name.replace('_', ' ')} takes {again:.2f} of the masked model's time: not taken")
    return MASKED, 1.0


@torch.inference_mode()
def limit(model: nn.Module, masked: nn.Module, images: Tensor) -> float:
    """What a model would take over the masked one if its sparse layers took no time at all."""
    empty = copy.deepcopy(model)
    for name, layer in list(sparse_layers(empty)):
        parent, _, leaf = name.rpartition(".")
        setattr(empty.get_submodule(parent), leaf, in_place_of(layer, Nothing(as_linear(layer))))
    return _whole_ratio(empty, masked, images, PAIRS)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of a model in evaluation mode; a token selection that samples there draws the same each time."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits: Tensor = model(images)
    return logits


def _whole_ratio(model: nn.Module, reference: nn.Module, images: Tensor, pairs: int) -> float:
    _seconds(model, images)
    _seconds(reference, images)
    return statistics.median(_seconds(model, images) / _seconds(reference, images) for _ in range(pairs))

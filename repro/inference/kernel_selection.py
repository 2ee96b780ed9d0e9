"""Measures which kernel each layer of a finished sparse model should use, and whether shrinking the model pays off.

The fastest kernel depends on the device, the batch size and the pattern of zeros, so each candidate is timed
alternately with the dense layer. Then the whole model is timed in the same way, and forms that are slower than the
masked model are not used.
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

from repro.errors import count_of
from repro.inference.kernels import (
    KERNELS,
    Layer,
    apply_kernels,
    as_layer,
    as_linear,
    densities,
    density,
    has_kernel,
    replace_layer,
    sparse_layers,
)
from repro.inference.logits import logits_of
from repro.runs.provenance import cpu_name

PAIRS = 5
CONFIRMING_PAIRS = 9  # the winner is timed again, because selecting the lowest time biases it
MIN_GAIN = 0.03  # minimum time saving as a share of the dense time, above the noise of a measurement
MAX_SLOWDOWN = 1.02  # maximum time of the selected form relative to the masked model
MAX_LOGIT_DIFFERENCE = 1e-3  # from the masked model, since kernels sum in another order
MASKED, SMALLER, WITH_KERNELS = "masked", "smaller", "with_kernels"

Timer = Callable[[nn.Module, Tensor], float]
Log = Callable[[str], None]


def forward_seconds(module: nn.Module, inputs: Tensor) -> float:
    """Return the wall-clock seconds of one forward pass."""
    on_gpu = inputs.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    module(inputs)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


@dataclass(frozen=True)
class KernelSearch:
    """How kernels are measured."""

    batch: int  # images per forward pass
    device: str = "cpu"  # the device to measure on, as torch names it
    log: Log = lambda _: None  # receives a line for each decision
    timer: Timer = forward_seconds  # returns the seconds of one forward pass


@dataclass(frozen=True)
class KernelChoice:
    """The kernel chosen for a layer, and the median time of each candidate relative to the dense layer."""

    layer: str
    density: float
    kernel: str
    time_over_dense: Mapping[str, float]


class ZeroCostLinear(nn.Module):
    """A stand-in for a linear layer that takes no time, to measure how long a model spends outside sparse layers."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features = linear.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """Return zeros of shape (..., out_features) without allocating them."""
        return inputs.new_zeros(()).expand(*inputs.shape[:-1], self.out_features)


@torch.inference_mode()
def select_kernels(model: nn.Module, images: Tensor, search: KernelSearch) -> list[KernelChoice]:
    """Choose a kernel for every sparse layer by timing all kernels at the layer's input shape for `images`.

    Layers of the same shape whose densities agree to one significant digit share a measurement. Each gets the fastest
    kernel that fits it, or stays dense. The model is not changed.
    """
    layers = dict(sparse_layers(model))
    shapes = _input_shapes(model, layers, images)
    choices: list[KernelChoice] = []
    measured: dict[tuple[object, ...], dict[str, float]] = {}
    for number, (name, layer) in enumerate(layers.items(), 1):
        weight = as_linear(layer).weight
        key = (type(layer), shapes[name], weight.shape, *(f"{share:.1g}" for share in densities(weight)))
        if key not in measured:
            inputs = torch.randn(shapes[name], dtype=images.dtype, device=images.device)
            measured[key] = dict(_times_over_dense(layer, inputs, search.timer))
        times = measured[key]
        winners = sorted((ratio, kernel) for kernel, ratio in times.items() if ratio <= 1 - MIN_GAIN)
        best = next((kernel for _, kernel in winners if has_kernel(layer, kernel)), "dense")
        choices.append(KernelChoice(name, density(layer), best, times))
        search.log(f"{number} of {count_of(len(layers), 'layer')}: {name}, density {choices[-1].density:.3f}: {best}")
    return choices


def _input_shapes(model: nn.Module, layers: Mapping[str, Layer], images: Tensor) -> dict[str, torch.Size]:
    shapes: dict[str, torch.Size] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: shapes.__setitem__(name, inputs[0].shape))
        for name, layer in layers.items()
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _times_over_dense(layer: Layer, inputs: Tensor, timer: Timer) -> Iterator[tuple[str, float]]:
    for name, build in KERNELS.items():
        linear = build(as_linear(layer))
        if linear is None:
            continue
        module = as_layer(layer, linear)
        timer(module, inputs)  # compiles the kernel and warms up the caches
        ratios = []
        for _ in range(PAIRS):
            ratios.append(timer(module, inputs) / timer(layer, inputs))
            if ratios[0] > 2:
                break  # far too slow to be selected
        yield name, statistics.median(ratios)


@torch.inference_mode()
def select_form(masked: nn.Module, small: nn.Module, images: Tensor, search: KernelSearch) -> dict[str, Any]:
    """Find the fastest form of a finished model on the device of `images`.

    Args:
        masked: The model with full-size matrices, which is the reference.
        small: The same model, physically smaller. It is not changed.
        images: Batch of shape (batch, channels, height, width) on the models' device, in their precision.
        search: How kernels and forms are measured.

    Returns:
        JSON values for the description of an export:

        * `form`: `with_kernels`, `smaller` (all layers dense), or `masked` if both are more than 2 % slower than that.
        * `layers`: The kernel of each layer that is not dense.
        * `tried`: The time of each kernel relative to the dense layer, by layer.
        * `time_over_masked`: The time of each form relative to the masked model, and that of the selected form when it
          was measured `again`.
        * `limit_over_masked`: The time relative to the masked model if sparse layers took no time.
        * `largest_logit_difference`: Between the models with kernels and masked; None if all layers are dense.
        * `device`, `threads`, `batch`, `dtype`: The setting of the measurement.
    """
    choices = select_kernels(small, images, search)
    layers = {choice.layer: choice.kernel for choice in choices if choice.kernel != "dense"}
    forms = {MASKED: masked, SMALLER: small}
    difference = None
    if layers:
        fast = apply_kernels(copy.deepcopy(small), layers)
        difference = float((logits_of(fast, images) - logits_of(masked, images)).abs().max())
        if difference <= MAX_LOGIT_DIFFERENCE:
            forms[WITH_KERNELS] = fast
        else:
            search.log(
                f"kernels change logits by {difference:.2g} (limit: {MAX_LOGIT_DIFFERENCE:g}): all layers stay dense"
            )
    times = {
        name: _time_over(masked, form, images, PAIRS, search.timer) for name, form in forms.items() if name != MASKED
    }
    form, confirmed = _fastest_confirmed(times, forms, images, search)
    return {
        "form": form,
        "layers": layers if form == WITH_KERNELS else {},
        "tried": {
            choice.layer: {name: round(ratio, 3) for name, ratio in choice.time_over_dense.items()}
            for choice in choices
        },
        "time_over_masked": {**{name: round(ratio, 4) for name, ratio in times.items()}, "again": round(confirmed, 4)},
        "limit_over_masked": round(_time_over(masked, _without_sparse_layers(small), images, PAIRS, search.timer), 4),
        "largest_logit_difference": difference,
        "device": cpu_name() if images.device.type == "cpu" else torch.cuda.get_device_name(images.device),
        "threads": torch.get_num_threads() if images.device.type == "cpu" else None,
        "batch": len(images),
        "dtype": str(images.dtype).removeprefix("torch."),
    }


def _fastest_confirmed(
    times: Mapping[str, float], forms: Mapping[str, nn.Module], images: Tensor, search: KernelSearch
) -> tuple[str, float]:
    """Measure the forms again, fastest first; return the first that is not slower than the masked model, and its time.

    The time is relative to the masked model.
    """
    for name in sorted(times, key=lambda name: times[name]):
        confirmed = _time_over(forms[MASKED], forms[name], images, CONFIRMING_PAIRS, search.timer)
        if confirmed <= MAX_SLOWDOWN:
            return name, confirmed
        search.log(f"{name.replace('_', ' ')} takes {confirmed:.2f} times as long as the masked model: not used")
    return MASKED, 1.0


def _without_sparse_layers(model: nn.Module) -> nn.Module:
    emptied = copy.deepcopy(model)
    for name, layer in list(sparse_layers(emptied)):
        replace_layer(emptied, name, ZeroCostLinear(as_linear(layer)))
    return emptied


def _time_over(reference: nn.Module, model: nn.Module, images: Tensor, pairs: int, timer: Timer) -> float:
    timer(model, images)
    timer(reference, images)
    return statistics.median(timer(model, images) / timer(reference, images) for _ in range(pairs))

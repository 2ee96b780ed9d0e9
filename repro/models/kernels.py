"""How each linear layer of a finished sparse model computes: the fastest of several kernels, by measurement.

What wins depends on the device, the batch and how the zeros lie; nobody can tell without measuring. So `choose` times
every kernel that a layer has against the dense one, in turn, on the device at hand, and takes it only where it wins.
"""

from __future__ import annotations

import copy
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from repro.errors import UserError
from repro.runs.provenance import cpu_name

PAIRS = 5
# A kernel must win by more than timing can be wrong by.
LEAST_GAIN = 0.03
# Denser layers than this are left dense without a try: no kernel here has won there.
DENSEST = 0.75


class TrimmedLinear(nn.Module):
    """A linear layer without its all-zero rows and columns: a smaller dense product."""

    inputs: Tensor
    outputs: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("inputs", weight.any(0).nonzero().flatten())
        self.register_buffer("outputs", weight.any(1).nonzero().flatten())
        self.register_buffer("weight", weight[self.outputs][:, self.inputs].clone())
        bias = weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        if len(self.inputs) < self.in_features:
            inputs = inputs.index_select(-1, self.inputs)
        if len(self.outputs) == self.out_features:
            return functional.linear(inputs, self.weight, self.bias)
        found = functional.linear(inputs, self.weight, self.bias[self.outputs])
        return self.bias.to(found).expand(*found.shape[:-1], -1).index_copy(-1, self.outputs, found)


class SparseLinear(nn.Module):
    """A linear layer by torch's own sparse product, tokens as columns: CSR, or BSR for blocks of `block` x `block`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear, block: int | None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        with warnings.catch_warnings():  # said once in every process: sparse layouts are in beta
            warnings.filterwarnings("ignore", message="Sparse (CSR|BSR)")
            sparse = weight.to_sparse_csr() if block is None else weight.to_sparse_bsr((block, block))
        self.register_buffer("weight", sparse)
        bias = weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        columns = inputs.reshape(-1, self.in_features).t().contiguous()
        found = (self.weight @ columns).t() + self.bias
        return found.reshape(*inputs.shape[:-1], self.out_features)


def _trimmed(linear: nn.Linear) -> nn.Module | None:
    weight = linear.weight
    return TrimmedLinear(linear) if not (weight.any(0).all() and weight.any(1).all()) else None


def _csr(linear: nn.Linear) -> nn.Module | None:
    return SparseLinear(linear, None)


def _bsr(linear: nn.Linear) -> nn.Module | None:
    block = next((size for size in (32, 16) if block_density(linear.weight, size) < 1.5 * _density(linear)), None)
    return None if block is None else SparseLinear(linear, block)


def _packed(rows: int) -> Callable[[nn.Linear], nn.Module | None]:
    def build(linear: nn.Linear) -> nn.Module | None:
        weight = linear.weight
        if not has_packed() or weight.device.type != "cpu" or weight.dtype != torch.float32:
            return None
        if weight.shape[0] % rows or (rows > 1 and _group_density(weight, rows) > 1.5 * _density(linear)):
            return None
        from repro.models.packed import PackedLinear

        return PackedLinear(linear, rows)

    return build


# What a layer can be replaced by, by name; None where it makes no sense for a layer. `dense` is the layer as it is.
KERNELS: Mapping[str, Callable[[nn.Linear], nn.Module | None]] = {
    "trimmed": _trimmed,
    "csr": _csr,
    "bsr": _bsr,
    "packed": _packed(1),
    "packed_blocks": _packed(4),
}


@dataclass(frozen=True)
class Choice:
    """What a layer computes with, and the medians of its time over the dense one's for each kernel that was tried."""

    layer: str
    density: float
    kernel: str
    time_over_dense: Mapping[str, float]


def has_packed() -> bool:
    """Whether the compiled kernels are there: extra `kernels`."""
    return importlib.util.find_spec("numba") is not None


def block_density(weight: Tensor, size: int) -> float:
    """Share of the `size` x `size` blocks that hold a weight that is not zero; 1 where blocks do not fit."""
    if weight.shape[0] % size or weight.shape[1] % size:
        return 1.0
    blocks = weight.unflatten(0, (-1, size)).unflatten(-1, (-1, size))
    return float(blocks.ne(0).any(1).any(-1).float().mean())


def _group_density(weight: Tensor, rows: int) -> float:
    return float(weight.unflatten(0, (-1, rows)).ne(0).any(1).float().mean())


def _densities(weight: Tensor) -> tuple[float, ...]:
    """Of weights, rows, columns and blocks: what decides which kernel wins."""
    nonzero = weight.ne(0)
    own = (float(nonzero.float().mean()), float(nonzero.any(0).float().mean()), float(nonzero.any(1).float().mean()))
    return (*own, block_density(weight, 16), block_density(weight, 32))


def _density(linear: nn.Linear) -> float:
    return float(linear.weight.ne(0).float().mean())


def sparse_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers with few enough weights that another kernel may pay."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and _density(module) <= DENSEST:
            yield name, module


@torch.inference_mode()
def choose(model: nn.Module, images: Tensor, tell: Callable[[str], None] = lambda _: None) -> list[Choice]:
    """Time every kernel of the sparse layers on inputs of the size they see with `images`; the model is not changed.

    Layers of one shape whose zeros lie alike (to one digit of their densities) share one measurement.
    """
    layers = dict(sparse_layers(model))
    sizes = _input_sizes(model, layers, images)
    choices: list[Choice] = []
    known: dict[tuple[object, ...], dict[str, float]] = {}
    for number, (name, linear) in enumerate(layers.items(), 1):
        alike = (sizes[name], linear.weight.shape, *(f"{density:.1g}" for density in _densities(linear.weight)))
        if alike not in known:
            inputs = torch.randn(sizes[name], dtype=images.dtype, device=images.device)
            known[alike] = dict(_ratios(linear, inputs))
        ratios = known[alike]
        best = min(ratios, key=lambda kernel: ratios[kernel], default="dense")
        if best != "dense" and ratios[best] > 1 - LEAST_GAIN:
            best = "dense"
        choices.append(Choice(name, _density(linear), best, ratios))
        tell(f"{number} of {len(layers)} layers: {name}, density {choices[-1].density:.3f}: {best}")
    return choices


def _input_sizes(model: nn.Module, layers: Mapping[str, nn.Linear], images: Tensor) -> dict[str, torch.Size]:
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


def _ratios(linear: nn.Linear, inputs: Tensor) -> Iterator[tuple[str, float]]:
    for name, build in KERNELS.items():
        module = build(linear)
        if module is None:
            continue
        _seconds(module, inputs)  # compiles, and wakes caches
        pairs = []
        for _ in range(PAIRS):
            pairs.append(_seconds(module, inputs) / _seconds(linear, inputs))
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
def measured_kernels(
    masked: nn.Module, small: nn.Module, images: Tensor, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The fastest kernels for `small` on the device at hand, as they are written into an export.

    Args:
        masked: the model with full matrices, which `small` is compared with.
        small: the same model, physically smaller; not changed.
        images: (batch, channels, height, width), on the models' device, in their precision.

    Returns:
        `layers`: the kernel of each layer that is not dense; `tried`: times over dense; `time_over_masked`: of the
        whole model with dense layers, and with the kernels. Where these do not make it faster, `layers` is empty.
    """
    choices = choose(small, images, tell)
    layers = {choice.layer: choice.kernel for choice in choices if choice.kernel != "dense"}
    sparse = apply_kernels(copy.deepcopy(small), layers)
    dense_ratio = _whole_ratio(small, masked, images)
    sparse_ratio = _whole_ratio(sparse, masked, images) if layers else dense_ratio
    if layers and sparse_ratio > dense_ratio:
        tell(f"together these kernels are slower ({sparse_ratio:.2f} against {dense_ratio:.2f}): all layers stay dense")
        layers = {}
    return {
        "layers": layers,
        "tried": {
            choice.layer: {name: round(r, 3) for name, r in choice.time_over_dense.items()} for choice in choices
        },
        "time_over_masked": {"dense": round(dense_ratio, 4), "kernels": round(min(dense_ratio, sparse_ratio), 4)},
        "device": cpu_name() if images.device.type == "cpu" else torch.cuda.get_device_name(images.device),
        "threads": torch.get_num_threads() if images.device.type == "cpu" else None,
        "batch": len(images),
        "dtype": str(images.dtype).removeprefix("torch."),
    }


def _whole_ratio(model: nn.Module, reference: nn.Module, images: Tensor) -> float:
    _seconds(model, images)
    _seconds(reference, images)
    return statistics.median(_seconds(model, images) / _seconds(reference, images) for _ in range(PAIRS))


def apply_kernels(model: nn.Module, kernels: Mapping[str, str]) -> nn.Module:
    """Let layers compute with the kernels named, in place; returns the model.

    Raises:
        UserError: for a kernel that is not known, not installed, or not for this device.
    """
    for name, kernel in kernels.items():
        if kernel == "dense":
            continue
        if kernel not in KERNELS:
            raise UserError(f"layer {name}: no kernel {kernel!r}; valid: dense, {', '.join(KERNELS)}")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear), name
        module = KERNELS[kernel](linear)
        if module is None:
            hint = "" if has_packed() else " (numba is not installed: pip install 'repro-sparse-vit[kernels]')"
            raise UserError(f"layer {name}: kernel {kernel} cannot be had here{hint}; load it with kernels='dense'")
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, module)
    return model

"""What the layers of a finished sparse model can compute with: kernels, all of which say what the dense one says.

Linear layers, and convolutions of one pixel, which are linear layers over pixels. Which is the fastest, if any, is
found in `repro.models.choosing`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from repro.errors import UserError

Layer: TypeAlias = nn.Linear | nn.Conv2d
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


class Pointwise(nn.Module):
    """A convolution of one pixel by a linear layer over pixels."""

    def __init__(self, linear: nn.Module, stride: tuple[int, int]) -> None:
        super().__init__()
        self.linear, self.stride = linear, stride

    def forward(self, images: Tensor) -> Tensor:
        """(images, in_channels, height, width) to (images, out_channels, height / stride, width / stride)."""
        down, across = self.stride
        if down > 1 or across > 1:
            images = images[..., ::down, ::across]
        return cast(Tensor, self.linear(images.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def as_linear(layer: Layer) -> nn.Linear:
    """A layer of `sparse_layers` as a linear one, on the same weights."""
    if isinstance(layer, nn.Linear):
        return layer
    linear = nn.Linear(layer.in_channels, layer.out_channels, layer.bias is not None, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().flatten(1), requires_grad=False)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return linear


def in_place_of(layer: Layer, linear: nn.Module) -> nn.Module:
    """What takes the place of a layer once `as_linear` of it has been replaced."""
    return linear if isinstance(layer, nn.Linear) else Pointwise(linear, cast(tuple[int, int], layer.stride))


def _trimmed(linear: nn.Linear) -> nn.Module | None:
    weight = linear.weight
    return TrimmedLinear(linear) if not (weight.any(0).all() and weight.any(1).all()) else None


def _csr(linear: nn.Linear) -> nn.Module | None:
    return SparseLinear(linear, None)


def _bsr(linear: nn.Linear) -> nn.Module | None:
    fit = [size for size in (32, 16) if not any(side % size for side in linear.weight.shape)]
    block = next((size for size in fit if block_density(linear.weight, size) < 1.5 * density(linear)), None)
    return None if block is None else SparseLinear(linear, block)


def _packed(rows: int) -> Callable[[nn.Linear], nn.Module | None]:
    def build(linear: nn.Linear) -> nn.Module | None:
        weight = linear.weight
        if not has_packed() or weight.device.type != "cpu" or weight.dtype != torch.float32:
            return None
        if weight.shape[0] % rows or (rows > 1 and _group_density(weight, rows) > 1.5 * density(linear)):
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


def has_kernel(layer: Layer, name: str) -> bool:
    """Whether a layer can be replaced by the kernel of this name."""
    return name == "dense" or KERNELS[name](as_linear(layer)) is not None


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


def densities(weight: Tensor) -> tuple[float, ...]:
    """Of weights, rows, columns and blocks: what decides which kernel wins."""
    nonzero = weight.ne(0)
    own = (float(nonzero.float().mean()), float(nonzero.any(0).float().mean()), float(nonzero.any(1).float().mean()))
    return (*own, block_density(weight, 16), block_density(weight, 32))


def density(layer: Layer) -> float:
    """Share of the weights that are not zero."""
    return float(layer.weight.ne(0).float().mean())


def sparse_layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """The layers that another kernel can be had for, with few enough weights that it may pay."""
    for name, module in model.named_modules():
        if (isinstance(module, nn.Linear) or _is_pointwise(module)) and density(module) <= DENSEST:
            yield name, module


def _is_pointwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.padding == (0, 0)
        and module.groups == 1
    )


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
        layer = cast(Layer, model.get_submodule(name))
        module = KERNELS[kernel](as_linear(layer))
        if module is None:
            hint = "" if has_packed() else " (numba is not installed: pip install 'repro-sparse-vit[kernels]')"
            raise UserError(f"layer {name}: kernel {kernel} cannot be had here{hint}; load it with kernels='dense'")
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, in_place_of(layer, module))
    return model

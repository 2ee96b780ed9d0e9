"""Sparse kernels for the layers of a finished model: linear layers and 1x1 convolutions.

Every kernel computes what the dense layer computes. `repro.inference.kernel_selection` measures which is fastest.
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
MAX_DENSITY = 0.75  # no kernel here has beaten the dense product on a denser layer


class TrimmedLinear(nn.Module):
    """A linear layer without the rows and columns that are all zero, computed as a smaller dense product."""

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
        self.register_buffer("bias", bias_of(linear))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to (..., out_features)."""
        if len(self.inputs) < self.in_features:
            inputs = inputs.index_select(-1, self.inputs)
        if len(self.outputs) == self.out_features:
            return functional.linear(inputs, self.weight, self.bias)
        product = functional.linear(inputs, self.weight, self.bias[self.outputs])
        return self.bias.to(product).expand(*product.shape[:-1], -1).index_copy(-1, self.outputs, product)


class SparseLinear(nn.Module):
    """A linear layer that uses torch's sparse matrix product: CSR, or BSR with blocks of `block` x `block`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear, block: int | None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        with warnings.catch_warnings():  # torch warns once per process that sparse layouts are in beta
            warnings.filterwarnings("ignore", message="Sparse (CSR|BSR)")
            sparse = weight.to_sparse_csr() if block is None else weight.to_sparse_bsr((block, block))
        self.register_buffer("weight", sparse)
        self.register_buffer("bias", bias_of(linear))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to (..., out_features)."""
        columns = inputs.reshape(-1, self.in_features).t().contiguous()
        product = (self.weight @ columns).t() + self.bias
        return product.reshape(*inputs.shape[:-1], self.out_features)


class Pointwise(nn.Module):
    """A 1x1 convolution as a linear layer over pixels."""

    def __init__(self, linear: nn.Module, stride: tuple[int, int]) -> None:
        super().__init__()
        self.linear, self.stride = linear, stride

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        down, across = self.stride
        if down > 1 or across > 1:
            images = images[..., ::down, ::across]
        return cast(Tensor, self.linear(images.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def as_linear(layer: Layer) -> nn.Linear:
    """Return a layer of `sparse_layers` as a linear layer that shares its weights."""
    if isinstance(layer, nn.Linear):
        return layer
    linear = nn.Linear(layer.in_channels, layer.out_channels, layer.bias is not None, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().flatten(1), requires_grad=False)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return linear


def as_layer(layer: Layer, linear: nn.Module) -> nn.Module:
    """Wrap `linear`, which replaces `as_linear(layer)`, so that it replaces `layer`."""
    return linear if isinstance(layer, nn.Linear) else Pointwise(linear, cast(tuple[int, int], layer.stride))


def replace_layer(model: nn.Module, name: str, linear: nn.Module) -> None:
    """Replace the layer `name` of a model, in place, by `linear`, which replaces its `as_linear`."""
    parent, _, attribute = name.rpartition(".")
    layer = cast(Layer, model.get_submodule(name))
    setattr(model.get_submodule(parent), attribute, as_layer(layer, linear))


def _trimmed(linear: nn.Linear) -> nn.Module | None:
    weight = linear.weight
    return TrimmedLinear(linear) if not (weight.any(0).all() and weight.any(1).all()) else None


def _bsr(linear: nn.Linear) -> nn.Module | None:
    fitting = [size for size in (32, 16) if not any(side % size for side in linear.weight.shape)]
    block = next((size for size in fitting if block_density(linear.weight, size) < 1.5 * density(linear)), None)
    return None if block is None else SparseLinear(linear, block)


def _packed(rows: int) -> Callable[[nn.Linear], nn.Module | None]:
    def build(linear: nn.Linear) -> nn.Module | None:
        weight = linear.weight
        if not has_packed() or weight.device.type != "cpu" or weight.dtype != torch.float32:
            return None
        if weight.shape[0] % rows or (rows > 1 and _group_density(weight, rows) > 1.5 * density(linear)):
            return None
        from repro.inference.packed import PackedLinear

        return PackedLinear(linear, rows)

    return build


# Builders by kernel name. Each returns None for a layer that the kernel does not fit. The kernel `dense`, which keeps
# the layer, has no builder.
KERNELS: dict[str, Callable[[nn.Linear], nn.Module | None]] = {
    "trimmed": _trimmed,
    "csr": lambda linear: SparseLinear(linear, None),
    "bsr": _bsr,
    "packed": _packed(1),
    "packed_blocks": _packed(4),
}


def has_kernel(layer: Layer, name: str) -> bool:
    """Return whether the kernel of this name fits the layer."""
    return name == "dense" or KERNELS[name](as_linear(layer)) is not None


def has_packed() -> bool:
    """Return whether the compiled kernels are available (extra `kernels`)."""
    return importlib.util.find_spec("numba") is not None


def block_density(weight: Tensor, size: int) -> float:
    """Return the share of `size` x `size` blocks with a nonzero weight; 1 if `size` does not divide both sides."""
    if weight.shape[0] % size or weight.shape[1] % size:
        return 1.0
    blocks = weight.unflatten(0, (-1, size)).unflatten(-1, (-1, size))
    return float(blocks.ne(0).any(1).any(-1).float().mean())


def _group_density(weight: Tensor, rows: int) -> float:
    return float(weight.unflatten(0, (-1, rows)).ne(0).any(1).float().mean())


def densities(weight: Tensor) -> tuple[float, ...]:
    """Return the densities of weights, columns, rows, and blocks of 16 and 32, on which the fastest kernel depends."""
    nonzero = weight.ne(0)
    shares = (nonzero, nonzero.any(0), nonzero.any(1))
    return (*(float(share.float().mean()) for share in shares), block_density(weight, 16), block_density(weight, 32))


def density(layer: Layer) -> float:
    """Return the share of nonzero weights."""
    return float(layer.weight.ne(0).float().mean())


def sparse_layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Yield name and module of every linear layer and 1x1 convolution that is sparse enough for a kernel to pay off."""
    for name, module in model.named_modules():
        if (isinstance(module, nn.Linear) or _is_pointwise(module)) and density(module) <= MAX_DENSITY:
            yield name, module


def _is_pointwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.padding == (0, 0)
        and module.groups == 1
    )


def apply_kernels(model: nn.Module, kernels: Mapping[str, str]) -> nn.Module:
    """Replace layers by the named kernels, in place; return the model. Raises `UserError` for one that does not fit."""
    for name, kernel in kernels.items():
        if kernel == "dense":
            continue
        if kernel not in KERNELS:
            raise UserError(f"layer {name}: no kernel {kernel!r}; valid: dense, {', '.join(KERNELS)}")
        linear = KERNELS[kernel](as_linear(cast(Layer, model.get_submodule(name))))
        if linear is None:
            hint = "" if has_packed() else " (numba is not installed: pip install 'repro-sparse-vit[kernels]')"
            raise UserError(f"layer {name}: kernel {kernel} is not available here{hint}; load with kernels='dense'")
        replace_layer(model, name, linear)
    return model


def bias_of(linear: nn.Linear) -> Tensor:
    """Return a copy of the bias, or zeros if there is none."""
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach().clone()

"""Physical removal of heads and neurons whose weights are zero.

The selection depends only on the weights, so it does not matter which method produced the zeros. A method that masks
weights but not biases leaves heads and neurons with a constant output, which is added to the bias of the next layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

ALIGNMENT = 16  # neurons; matrix products handle multiples of this width without a remainder
MAX_PADDING = 0.02  # maximum share of neurons that alignment may add


@dataclass(frozen=True)
class Sizes:
    """The number of attention heads and of MLP neurons in each block."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def block_sizes(model: nn.Module) -> Sizes:
    """Return the sizes of the blocks of a timm vision transformer; empty for a model without such blocks."""
    blocks = blocks_of(model)
    return Sizes(
        tuple(int(block.attn.num_heads) for block in blocks), tuple(int(block.mlp.fc1.out_features) for block in blocks)
    )


@torch.no_grad()
def shrink(model: nn.Module) -> Sizes:
    """Remove, in place, the heads and neurons whose output does not depend on the input; return the new sizes.

    A head adds a constant to each token if its rows of the value projection are zero, because its attention weights sum
    to one, or if its columns of `proj` are zero. Likewise, a neuron adds a constant if its row of `fc1` or its column
    of `fc2` is zero. The constants are folded into the biases of `proj` and `fc2`. Each block keeps at least one head
    and one neuron, so that timm's classes still apply.
    """
    for block in blocks_of(model):
        heads, neurons = _at_least_one(active_heads(block.attn)), _at_least_one(active_neurons(block.mlp))
        if _folds(block.attn):
            _fold_heads(block.attn, heads)
        if _folds(block.mlp):
            _fold_neurons(block.mlp, neurons)
        _select_heads(block.attn, heads)
        _select_neurons(block.mlp, neurons)
    return block_sizes(model)


@torch.no_grad()
def resize(model: nn.Module, sizes: Sizes) -> None:
    """Keep only the first heads and neurons of each block, in place. The model must not have fewer."""
    for block, heads, neurons in zip(blocks_of(model), sizes.heads, sizes.neurons, strict=True):
        _select_heads(block.attn, torch.arange(heads))
        _select_neurons(block.mlp, torch.arange(neurons))


@torch.no_grad()
def align(model: nn.Module) -> nn.Module:
    """Pad each block with zero neurons to a multiple of 16, in place; return the model. Logits do not change.

    A matrix product of an odd width is slower than one of the next multiple: in DeiT-Small, 921 neurons take 10 %
    longer than 928. A block that would grow by more than 2 %, as in small models, is not padded.
    """
    for block in blocks_of(model):
        neurons = block.mlp.fc1.out_features
        padded = -(-neurons // ALIGNMENT) * ALIGNMENT
        if neurons < padded <= neurons * (1 + MAX_PADDING):
            block.mlp.fc1 = _padded(block.mlp.fc1, padded, block.mlp.fc1.in_features)
            block.mlp.fc2 = _padded(block.mlp.fc2, block.mlp.fc2.out_features, padded)
    return model


def active_heads(attention: Any) -> Tensor:
    """Return the indices (int64, possibly empty) of the heads whose output depends on the input."""
    heads, width = attention.num_heads, attention.head_dim
    values = attention.qkv.weight[2 * heads * width :].view(heads, -1).any(1)
    if attention.qkv.bias is not None and not _folds(attention):
        values |= attention.qkv.bias[2 * heads * width :].view(heads, -1).any(1)
    read = attention.proj.weight.view(-1, heads, width).any(2).any(0)
    return cast(Tensor, (values & read).nonzero().flatten())


def active_neurons(mlp: Any) -> Tensor:
    """Return the indices (int64, possibly empty) of the neurons whose output depends on the input."""
    active = mlp.fc1.weight.any(1)
    if mlp.fc1.bias is not None and not _folds(mlp):
        active |= mlp.fc1.bias != 0
    return cast(Tensor, (active & mlp.fc2.weight.any(0)).nonzero().flatten())


def _folds(part: Any) -> bool:
    """Return whether constants can be folded into the next layer's bias: no norm and no mixing of tokens in between."""
    if not isinstance(part, Attention | Mlp) or not isinstance(part.norm, nn.Identity):
        return False
    reader = part.proj if isinstance(part, Attention) else part.fc2
    return isinstance(reader, nn.Linear) and reader.bias is not None


def _fold_heads(attention: Any, kept: Tensor) -> None:
    if attention.qkv.bias is not None:
        values = attention.qkv.bias[2 * attention.attn_dim :].view(attention.num_heads, -1)
        _fold(attention.proj, _without(values, kept).flatten())


def _fold_neurons(mlp: Any, kept: Tensor) -> None:
    if mlp.fc1.bias is not None:
        _fold(mlp.fc2, _without(mlp.act(mlp.fc1.bias), kept))


def _without(values: Tensor, kept: Tensor) -> Tensor:
    """Return a copy of the constants with zeros for the heads or neurons that are kept."""
    return values.index_fill(0, kept.to(values.device), 0.0)


def _fold(reader: nn.Linear, constant: Tensor) -> None:
    reader.bias.add_((reader.weight.double() @ constant.double()).to(reader.bias.dtype))


def blocks_of(model: nn.Module) -> Sequence[Any]:
    """Return the blocks of a timm vision transformer; an empty list for another model."""
    return [block for block in getattr(model, "blocks", ()) if hasattr(block, "mlp")]


def _at_least_one(indices: Tensor) -> Tensor:
    return indices if len(indices) else indices.new_zeros(1)


def _select_heads(attention: Any, indices: Tensor) -> None:
    heads, width = attention.num_heads, attention.head_dim
    indices = indices.to(attention.qkv.weight.device)
    columns = (indices[:, None] * width + torch.arange(width, device=indices.device)).flatten()
    rows = torch.cat([part * heads * width + columns for part in range(3)])
    attention.qkv = _submatrix(attention.qkv, rows=rows)
    attention.proj = _submatrix(attention.proj, columns=columns)
    attention.num_heads, attention.attn_dim = len(indices), len(columns)


def _select_neurons(mlp: Any, indices: Tensor) -> None:
    indices = indices.to(mlp.fc1.weight.device)
    mlp.fc1 = _submatrix(mlp.fc1, rows=indices)
    mlp.fc2 = _submatrix(mlp.fc2, columns=indices)


def _submatrix(linear: nn.Linear, *, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Linear:
    weight: Tensor = linear.weight
    bias: Tensor | None = linear.bias
    if rows is not None:
        weight, bias = weight[rows], None if bias is None else bias[rows]
    if columns is not None:
        weight = weight[:, columns]
    return _linear(weight, bias)


def _padded(linear: nn.Linear, rows: int, columns: int) -> nn.Linear:
    below, right = rows - linear.out_features, columns - linear.in_features
    pad = nn.functional.pad
    return _linear(
        pad(linear.weight, (0, right, 0, below)), None if linear.bias is None else pad(linear.bias, (0, below))
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear

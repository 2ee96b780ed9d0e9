"""Physical removal of what contributes nothing: heads and neurons whose weights are zero leave the matrices.

Which they are is read from the weights, so it does not matter which method made them zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from repro.errors import UserError

# What vector units and matrix products take at once, and how many more neurons it may cost to come to a multiple of it.
ALIGNED_TO = 16
MOST_ADDED = 0.02


@dataclass(frozen=True)
class Sizes:
    """Heads and neurons of each block."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def sizes(model: nn.Module) -> Sizes:
    """The heads and neurons that each block of a timm vision transformer has; nothing for a model without blocks."""
    blocks = _blocks(model)
    return Sizes(
        tuple(int(block.attn.num_heads) for block in blocks), tuple(int(block.mlp.fc1.out_features) for block in blocks)
    )


@torch.no_grad()
def shrink(model: nn.Module) -> Sizes:
    """Remove, in place, the heads and neurons that add nothing to any input's logits; returns what is left.

    A head adds nothing where its rows of the value projection, bias among them, are zero, or its columns of proj; it
    leaves qkv and the columns of proj. A neuron adds nothing where its row of fc1 and its bias are zero (GELU of 0 is
    0), or its column of fc2. A block keeps one of each at least, so that it is still timm's class.
    """
    for block in _blocks(model):
        _keep_heads(block.attn, _at_least_one(speaking_heads(block.attn)))
        _keep_neurons(block.mlp, _at_least_one(_speaking_neurons(block.mlp)))
    return sizes(model)


@torch.no_grad()
def cut_to(model: nn.Module, left: Sizes) -> None:
    """Give a full model's blocks these sizes, in place; their weights are then whatever came first.

    Raises `UserError` where the model has fewer blocks, heads or neurons.
    """
    blocks = _blocks(model)
    if len(blocks) != len(left.heads) or len(blocks) != len(left.neurons):
        raise UserError(f"sizes of {len(left.heads)} blocks for a model of {len(blocks)}")
    for block, heads, neurons in zip(blocks, left.heads, left.neurons, strict=True):
        if not (1 <= heads <= block.attn.num_heads and 1 <= neurons <= block.mlp.fc1.out_features):
            raise UserError(f"a block cannot have {heads} heads and {neurons} neurons")
        _keep_heads(block.attn, torch.arange(heads))
        _keep_neurons(block.mlp, torch.arange(neurons))


@torch.no_grad()
def align(model: nn.Module) -> nn.Module:
    """Add neurons that say nothing to any input, in place, up to a multiple of 16 in each block; returns the model.

    Products of an odd width take longer than those of a slightly larger round one (921 neurons of DeiT-Small a tenth
    longer than 928). Where a multiple of 16 would be more than 2 % wider, as in small models, nothing is added.
    """
    for block in _blocks(model):
        neurons = block.mlp.fc1.out_features
        wanted = -(-neurons // ALIGNED_TO) * ALIGNED_TO
        if neurons < wanted <= neurons * (1 + MOST_ADDED):
            block.mlp.fc1 = _widened(block.mlp.fc1, wanted, block.mlp.fc1.in_features)
            block.mlp.fc2 = _widened(block.mlp.fc2, block.mlp.fc2.out_features, wanted)
    return model


def _blocks(model: nn.Module) -> Sequence[Any]:
    return [block for block in getattr(model, "blocks", ()) if hasattr(block, "mlp")]


def speaking_heads(attention: Any) -> Tensor:
    """Indices of the heads that add something to some input's logits; maybe none."""
    heads, width = attention.num_heads, attention.head_dim
    values = attention.qkv.weight[2 * heads * width :].view(heads, -1).any(1)
    if attention.qkv.bias is not None:
        values |= attention.qkv.bias[2 * heads * width :].view(heads, -1).any(1)
    read = attention.proj.weight.view(-1, heads, width).any(2).any(0)
    return cast(Tensor, (values & read).nonzero().flatten())


def _speaking_neurons(mlp: Any) -> Tensor:
    speaks = mlp.fc1.weight.any(1)
    if mlp.fc1.bias is not None:
        speaks |= mlp.fc1.bias != 0
    return cast(Tensor, (speaks & mlp.fc2.weight.any(0)).nonzero().flatten())


def _at_least_one(kept: Tensor) -> Tensor:
    return kept if len(kept) else torch.zeros(1, dtype=torch.int64, device=kept.device)


def _keep_heads(attention: Any, kept: Tensor) -> None:
    heads, width = attention.num_heads, attention.head_dim
    kept = kept.to(attention.qkv.weight.device)
    columns = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
    rows = torch.cat([part * heads * width + columns for part in range(3)])
    attention.qkv = _linear(attention.qkv, rows, None)
    attention.proj = _linear(attention.proj, None, columns)
    attention.num_heads, attention.attn_dim = len(kept), len(columns)


def _keep_neurons(mlp: Any, kept: Tensor) -> None:
    kept = kept.to(mlp.fc1.weight.device)
    mlp.fc1 = _linear(mlp.fc1, kept, None)
    mlp.fc2 = _linear(mlp.fc2, None, kept)


def _linear(full: nn.Linear, rows: Tensor | None, columns: Tensor | None) -> nn.Linear:
    """A linear layer of some rows or columns of another."""
    weight = full.weight if rows is None else full.weight[rows]
    weight = weight if columns is None else weight[:, columns]
    small = nn.Linear(weight.shape[1], weight.shape[0], full.bias is not None, weight.device, weight.dtype)
    small.weight.copy_(weight)
    if full.bias is not None:
        small.bias.copy_(full.bias if rows is None else full.bias[rows])
    return small


def _widened(small: nn.Linear, rows: int, columns: int) -> nn.Linear:
    """The same linear layer with rows and columns of zeros behind its own."""
    wide = nn.Linear(columns, rows, small.bias is not None, small.weight.device, small.weight.dtype)
    wide.weight.zero_()
    wide.weight[: small.out_features, : small.in_features] = small.weight
    if small.bias is not None:
        wide.bias.zero_()
        wide.bias[: small.out_features] = small.bias
    return wide

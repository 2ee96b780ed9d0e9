"""Runs blocks of a vision transformer over images with different numbers of tokens.

The tokens of a batch are padded: `values` is (images, n, width) with the class token first, and `valid` is a bool mask
(images, n - 1) of the patches that exist, or None if all do. Padding is never attended to. The three implementations
give the same results at different costs (docs/methods.md, IA-RED2; measured by benchmarks/token_dropping.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Run = Callable[[Sequence[Any], Tensor, Tensor | None], Tensor]
CHUNKS = 4  # number of groups that `run_grouped` splits a batch into


def gather(values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gather the kept patches of each image in order, padded to the largest count in the batch.

    Args:
        values: (images, n, width).
        keep: bool (images, n - 1).

    Returns the tokens, (images, 1 + largest count, width); the mask of valid patches, or None if all are valid; and
    their previous positions among the patches, int64 (images, largest count).
    """
    counts = keep.sum(1)
    least, most = (int(count) for count in torch.stack(counts.aminmax()).tolist())
    positions = torch.sort(keep.view(torch.uint8), dim=1, descending=True, stable=True).indices[:, :most]
    valid = None if least == most else torch.arange(most, device=keep.device) < counts[:, None]
    return take(values, positions), valid, positions


def take(values: Tensor, positions: Tensor) -> Tensor:
    """Select the class token and some patches of each image, with a single copy of rows.

    Args:
        values: (images, tokens, width).
        positions: int64 (images, n), among an image's patches.

    Returns (images, 1 + n, width).
    """
    images, tokens, width = values.shape
    first = tokens * torch.arange(images, device=values.device)[:, None]
    rows = torch.cat([first, first + 1 + positions], dim=1)
    return values.reshape(-1, width).index_select(0, rows.flatten()).view(images, rows.shape[1], width)


def run_padded(blocks: Sequence[Any], values: Tensor, valid: Tensor | None) -> Tensor:
    """Run all images at the length of the longest one; attention ignores padding."""
    mask = None if valid is None else _with_class_token(valid)[:, None, None, :]
    if mask is not None and torch.compiler.is_exporting():
        mask = mask.expand(-1, 1, values.shape[1], -1)  # onnxruntime needs a row for every query
    for block in blocks:
        values = block(values, attn_mask=mask)
    return values


def run_grouped(blocks: Sequence[Any], values: Tensor, valid: Tensor | None) -> Tensor:
    """Run images sorted by length in `CHUNKS` groups, each at the length of its longest image."""
    if valid is None:
        return run_padded(blocks, values, None)
    counts = valid.sum(1)
    order = counts.argsort(stable=True)
    output = values.new_zeros(values.shape)
    for group in order.tensor_split(min(CHUNKS, len(order))):
        longest = int(counts[group].max())
        mask = valid[group, :longest]
        result = run_padded(blocks, values[group, : longest + 1], None if bool(mask.all()) else mask)
        padded = functional.pad(result, (0, 0, 0, values.shape[1] - 1 - longest))
        output = output.index_copy(0, group, padded.to(output.dtype))
    return output


def run_packed(blocks: Sequence[Any], values: Tensor, valid: Tensor | None) -> Tensor:
    """Run norms, projections and MLPs only on valid tokens.

    Attention is computed image by image on a CPU, where calls are cheap, and padded on a GPU, where they are not.
    """
    if valid is None:
        return run_padded(blocks, values, None)
    images, longest, width = values.shape
    mask = _with_class_token(valid)
    indices = mask.flatten().nonzero().flatten()
    packed = values.reshape(-1, width).index_select(0, indices)
    image = torch.arange(images, device=values.device).repeat_interleave(mask.sum(1))
    counts = mask.sum(1).tolist() if values.device.type == "cpu" else None
    for block in blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(packed))
        if counts is None:
            mixed = _padded_attention(attention, qkv, indices, mask)
        else:
            mixed = _attention_by_image(attention, qkv, counts)
        attended = attention.proj_drop(attention.proj(mixed))
        packed = packed + drop_path_by_image(block.drop_path1, block.ls1(attended), image, images)
        packed = packed + drop_path_by_image(block.drop_path2, block.ls2(block.mlp(block.norm2(packed))), image, images)
    return _unpack(packed, indices, images * longest).view(images, longest, width)


def drop_path_by_image(path: Any, packed: Tensor, image: Tensor, images: int) -> Tensor:
    """Apply stochastic depth to packed tokens, (tokens, width), with one draw per image.

    Args:
        path: timm's `DropPath`, or an identity.
        image: index of each token's image, int64 (tokens,).
    """
    if not path.training or not getattr(path, "drop_prob", 0.0):
        return packed
    factor: Tensor = path(packed.new_ones(images, 1))
    return packed * factor.index_select(0, image)


def _attention_by_image(attention: Any, qkv: Tensor, counts: Sequence[int]) -> Tensor:
    """Compute attention of packed tokens image by image: (tokens of all images, width of all heads)."""
    heads = qkv.view(len(qkv), 3, attention.num_heads, attention.head_dim).permute(1, 2, 0, 3)
    query, key, value = attention.q_norm(heads[0]), attention.k_norm(heads[1]), heads[2]
    outputs = [
        functional.scaled_dot_product_attention(*(part[None] for part in image))[0]
        for image in zip(query.split(counts, 1), key.split(counts, 1), value.split(counts, 1), strict=True)
    ]
    return torch.cat(outputs, 1).transpose(0, 1).reshape(len(qkv), attention.attn_dim)


def _padded_attention(attention: Any, qkv: Tensor, indices: Tensor, mask: Tensor) -> Tensor:
    """Compute attention of packed tokens in a padded batch: (tokens of all images, width of all heads)."""
    images, longest = mask.shape
    padded = _unpack(qkv, indices, images * longest)
    padded = padded.view(images, longest, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    query, key, value = padded.unbind(0)
    query, key = attention.q_norm(query), attention.k_norm(key)
    output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
    return output.transpose(1, 2).reshape(images * longest, attention.attn_dim).index_select(0, indices)


def _unpack(packed: Tensor, indices: Tensor, rows: int) -> Tensor:
    return packed.new_zeros(rows, packed.shape[1]).index_copy(0, indices, packed)


def _with_class_token(valid: Tensor) -> Tensor:
    return functional.pad(valid, (1, 0), value=True)


EXECUTIONS: Mapping[str, Run] = {"padded": run_padded, "grouped": run_grouped, "packed": run_packed}

"""Blocks of a vision transformer over images that have different numbers of tokens left.

Tokens of a batch are held padded: `values` is (images, n, width) with the class token first, `valid` a bool mask
(images, n - 1) of the patches that are there, None where all are. What stands at another place is never attended to.
Three ways through a group of blocks give the same numbers, and cost differently (docs/methods.md, IA-RED2; measured by
benchmarks/token_dropping.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Run = Callable[[Sequence[Any], Tensor, Tensor | None], Tensor]
CHUNKS = 4  # of a batch, in `run_grouped`


def gather(values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Keep some patches of each image, in their order, padded to the largest count of the batch.

    Args:
        values: (images, n, width).
        keep: bool (images, n - 1).

    Returns the values (images, 1 + largest count, width), the mask of those that are there, None where all are, and
    the places that they had among the patches, int64 (images, largest count).
    """
    counts = keep.sum(1)
    least, most = (int(count) for count in torch.stack(counts.aminmax()).tolist())
    places = torch.sort(keep.view(torch.uint8), dim=1, descending=True, stable=True).indices[:, :most]
    valid = None if least == most else torch.arange(most, device=keep.device) < counts[:, None]
    return take(values, places), valid, places


def take(values: Tensor, places: Tensor) -> Tensor:
    """The class token and some patches of each image, in one go: rows are copied, not numbers picked.

    Args:
        values: (images, tokens, width).
        places: int64 (images, n), among an image's patches.

    Returns (images, 1 + n, width).
    """
    images, tokens, width = values.shape
    first = tokens * torch.arange(images, device=values.device)[:, None]
    rows = torch.cat([first, first + 1 + places], dim=1)
    return values.reshape(-1, width).index_select(0, rows.flatten()).view(images, rows.shape[1], width)


def run_padded(blocks: Sequence[Any], values: Tensor, valid: Tensor | None) -> Tensor:
    """Every image as long as the longest; attention leaves out what is not there."""
    mask = None if valid is None else _with_class_token(valid)[:, None, None, :]
    if mask is not None and torch.compiler.is_exporting():
        mask = mask.expand(-1, 1, values.shape[1], -1)  # onnxruntime wants a row for every query
    for block in blocks:
        values = block(values, attn_mask=mask)
    return values


def run_grouped(blocks: Sequence[Any], values: Tensor, valid: Tensor | None) -> Tensor:
    """Images sorted by their count and cut into `CHUNKS`, each as long as its own longest."""
    if valid is None:
        return run_padded(blocks, values, None)
    counts = valid.sum(1)
    order = counts.argsort(stable=True)
    found = values.new_zeros(values.shape)
    for some in order.tensor_split(min(CHUNKS, len(order))):
        most = int(counts[some].max())
        mask = valid[some, :most]
        ran = run_padded(blocks, values[some, : most + 1], None if bool(mask.all()) else mask)
        found = found.index_copy(0, some, functional.pad(ran, (0, 0, 0, values.shape[1] - 1 - most)).to(found.dtype))
    return found


def run_packed(blocks: Sequence[Any], values: Tensor, valid: Tensor | None) -> Tensor:
    """Only what is there goes through norms, projections and MLPs.

    Attention goes image by image on a CPU, where a call costs little, and is padded on a GPU, where many do.
    """
    if valid is None:
        return run_padded(blocks, values, None)
    images, longest, width = values.shape
    mask = _with_class_token(valid)
    there = mask.flatten().nonzero().flatten()
    packed = values.reshape(-1, width).index_select(0, there)
    image = torch.arange(images, device=values.device).repeat_interleave(mask.sum(1))
    counts = mask.sum(1).tolist() if values.device.type == "cpu" else None
    for block in blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(packed))
        mixed = _padded_attention(attention, qkv, there, mask) if counts is None else _each(attention, qkv, counts)
        attended = attention.proj_drop(attention.proj(mixed))
        packed = packed + by_image(block.drop_path1, block.ls1(attended), image, images)
        packed = packed + by_image(block.drop_path2, block.ls2(block.mlp(block.norm2(packed))), image, images)
    return _spread(packed, there, images * longest).view(images, longest, width)


def by_image(path: Any, packed: Tensor, image: Tensor, images: int) -> Tensor:
    """Path dropping of packed tokens, (tokens, width): as for padded ones, an image has the path or has not.

    Args:
        path: timm's `DropPath`, or what stands for none.
        image: int64 (tokens,): which image a token is of.
    """
    if not path.training or not getattr(path, "drop_prob", 0.0):
        return packed
    factor: Tensor = path(packed.new_ones(images, 1))
    return packed * factor.index_select(0, image)


def _each(attention: Any, qkv: Tensor, counts: Sequence[int]) -> Tensor:
    """Attention of packed tokens, one image after the other: (tokens of all images, width of all heads)."""
    heads = qkv.view(len(qkv), 3, attention.num_heads, attention.head_dim).permute(1, 2, 0, 3)
    query, key, value = attention.q_norm(heads[0]), attention.k_norm(heads[1]), heads[2]
    found = [
        functional.scaled_dot_product_attention(*(some[None] for some in image))[0]
        for image in zip(query.split(counts, 1), key.split(counts, 1), value.split(counts, 1), strict=True)
    ]
    return torch.cat(found, 1).transpose(0, 1).reshape(len(qkv), attention.attn_dim)


def _padded_attention(attention: Any, qkv: Tensor, there: Tensor, mask: Tensor) -> Tensor:
    """The same of queries, keys and values that are scattered to a padded batch, and gathered again."""
    images, longest = mask.shape
    padded = _spread(qkv, there, images * longest)
    padded = padded.view(images, longest, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    query, key, value = padded.unbind(0)
    query, key = attention.q_norm(query), attention.k_norm(key)
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
    return found.transpose(1, 2).reshape(images * longest, attention.attn_dim).index_select(0, there)


def _spread(packed: Tensor, there: Tensor, rows: int) -> Tensor:
    return packed.new_zeros(rows, packed.shape[1]).index_copy(0, there, packed)


def _with_class_token(valid: Tensor) -> Tensor:
    return functional.pad(valid, (1, 0), value=True)


EXECUTIONS: Mapping[str, Run] = {"padded": run_padded, "grouped": run_grouped, "packed": run_packed}

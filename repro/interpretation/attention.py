"""Attention maps of a running vision transformer, in the places that its patches have in the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn

from repro.errors import UserError
from repro.tokens.dropping import Trace


@contextmanager
def attention_maps(model: nn.Module, patches: int, traces: Sequence[Trace]) -> Iterator[list[Tensor]]:
    """Within the block, the attention of one image's forward pass: a map a transformer block, in their order.

    A map is float32 (1 + patches, 1 + patches), the mean over heads: how much the token of a row takes of that of a
    column, the class token first. Tokens that were dropped before have rows and columns of zeros; which those are, the
    last of `traces` says by then.

    Raises `UserError` for blocks whose attention is not one of tokens to tokens.
    """
    found: list[Tensor] = []

    def look(attention: Any, inputs: tuple[Tensor, ...]) -> None:
        (values,) = inputs
        _, tokens, _ = values.shape
        qkv = attention.qkv(values).reshape(1, tokens, 3, attention.num_heads, attention.head_dim)
        query, key, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = attention.q_norm(query).float(), attention.k_norm(key).float()
        small = ((query @ key.transpose(-2, -1)) * attention.scale).softmax(-1)[0].mean(0)
        found.append(small if tokens == 1 + patches else _spread(small, traces[-1].kept[0]))

    blocks = [block.attn for block in getattr(model, "blocks", ())]
    if not blocks or not all(isinstance(attention, Attention) for attention in blocks):
        raise UserError("has no attention of tokens to tokens, which heat maps are made of; choose other rows")
    handles = [attention.register_forward_pre_hook(look) for attention in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _spread(small: Tensor, kept: Tensor) -> Tensor:
    """The map of those tokens that are left, with zeros where the others were."""
    there = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + kept.cpu().nonzero().flatten()])
    whole = torch.zeros(1 + len(kept), 1 + len(kept))
    whole[there[:, None], there[None, :]] = small.cpu()
    return whole

"""Attention maps of a vision transformer during a forward pass, indexed by image patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn

from repro.errors import UserError
from repro.models.token_dropping import Trace


@contextmanager
def attention_maps(model: nn.Module, patches: int, traces: Sequence[Trace]) -> Iterator[list[Tensor]]:
    """Record the attention in the forward pass of one image within the `with` block: one map per transformer block.

    A map is float32 (1 + patches, 1 + patches), averaged over heads. An entry is the weight of the column's token in
    the output of the row's token; the class token is first. Rows and columns of dropped tokens, which are identified by
    `traces` once the forward pass has filled it, are zero.

    Raises `UserError` for a model without attention between all tokens.
    """
    maps: list[Tensor] = []

    def record(attention: Any, inputs: tuple[Tensor, ...]) -> None:
        (values,) = inputs
        _, tokens, _ = values.shape
        qkv = attention.qkv(values).reshape(1, tokens, 3, attention.num_heads, attention.head_dim)
        query, key, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = attention.q_norm(query).float(), attention.k_norm(key).float()
        weights = ((query @ key.transpose(-2, -1)) * attention.scale).softmax(-1)[0].mean(0)
        maps.append(weights if tokens == 1 + patches else _with_dropped(weights, traces[-1].kept[0]))

    blocks = [block.attn for block in getattr(model, "blocks", ())]
    if not blocks or not all(isinstance(attention, Attention) for attention in blocks):
        raise UserError("has no attention between all tokens, which heat maps need; choose other rows")
    handles = [attention.register_forward_pre_hook(record) for attention in blocks]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _with_dropped(weights: Tensor, kept: Tensor) -> Tensor:
    """Expand a map of kept tokens with zeros for dropped tokens."""
    tokens = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + kept.cpu().nonzero().flatten()])
    full = torch.zeros(1 + len(kept), 1 + len(kept))
    full[tokens[:, None], tokens[None, :]] = weights.cpu()
    return full

"""Linformer: attention over a fixed number of mixtures of tokens (Wang et al., 2020), a baseline of IA-RED2.

softmax(Q (E K)^T / sqrt(d)) F V, with learned E and F of `rank` rows and one column per token. Written from the
formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from repro.methods.base import MethodPart
from repro.seeding import stream_seed


class LinformerAttention(nn.Module):
    """timm's attention with keys and values projected from `tokens` to `rank`. Heads share E and F."""

    def __init__(self, attention: Any, tokens: int, rank: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = attention.num_heads, attention.head_dim, attention.attn_dim
        self.qkv, self.proj = attention.qkv, attention.proj
        self.attn_drop, self.proj_drop = attention.attn_drop, attention.proj_drop
        self.mix_keys, self.mix_values = (nn.Parameter(torch.empty(rank, tokens)) for _ in range(2))
        for mixture in (self.mix_keys, self.mix_values):
            nn.init.normal_(mixture, std=rank**-0.5)

    def forward(self, values: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """Map (images, tokens, width) to the same shape. Masks are ignored, because they do not apply to mixtures."""
        images, tokens, _ = values.shape
        qkv = self.qkv(values).reshape(images, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = functional.scaled_dot_product_attention(
            query,
            self.mix_keys.to(key.dtype) @ key,
            self.mix_values.to(value.dtype) @ value,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )
        projected: Tensor = self.proj_drop(self.proj(mixed.transpose(1, 2).reshape(images, tokens, self.attn_dim)))
        return projected


class Linformer(MethodPart):
    """Replaces the attention of every block of a timm vision transformer with `LinformerAttention`.

    Args:
        tokens: number of tokens of one image, class token included.
        rank: number of mixtures.
    """

    def __init__(self, model: Any, *, tokens: int, rank: int, seed: int, **_: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("linformer", seed))
            for block in model.blocks:
                block.attn = LinformerAttention(block.attn, tokens, rank)

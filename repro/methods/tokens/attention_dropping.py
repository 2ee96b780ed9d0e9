"""Token dropping at fixed keep rates, by the attention of the class token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.methods.tokens.class_token_scores import class_token_logits
from repro.methods.tokens.fixed_rate import FixedRateDropper, FixedRateDropping
from repro.models.token_dropping import outside_autocast


class AttentionDropper(FixedRateDropper):
    """Scores a patch by the class token's attention to it in the next block, averaged over heads.

    It uses that block's norm, queries and keys, has no parameters of its own, and does not propagate gradients.
    """

    @torch.no_grad()
    def scores(self, values: Tensor, valid: Tensor, block: Any) -> Tensor:
        """Return the attention, (images, patches) in float32, normalized over the class token and the valid patches.

        A head that attends to the class token itself therefore has a lower weight in the mean.
        """
        attention = block.attn
        inner = attention.num_heads * attention.head_dim
        weight, bias = attention.qkv.weight, attention.qkv.bias
        with outside_autocast(values):
            normed = block.norm1(values)
            query = nn.functional.linear(normed[:, 0], weight[:inner], bias[:inner])
            query = query.unflatten(1, (attention.num_heads, attention.head_dim))
            logits = class_token_logits(query, weight[inner : 2 * inner], bias[inner : 2 * inner], normed).transpose(
                1, 2
            )
        present = nn.functional.pad(valid, (1, 0), value=True)
        return logits.masked_fill(~present[:, None], -torch.inf).softmax(-1)[:, :, 1:].mean(1)


class AttentionDropping(FixedRateDropping):
    """`FixedRateDropping` by attention."""

    dropper = AttentionDropper

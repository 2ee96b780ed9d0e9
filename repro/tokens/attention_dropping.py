"""Token dropping by attention: patches stay that the class token attends to, at the same budget as a learned choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.tokens.asking import asked
from repro.tokens.budgeted import BudgetedDropper, BudgetedDropping
from repro.tokens.dropping import outside_autocast


class AttentionDropper(BudgetedDropper):
    """Scores a patch by the class token's attention to it in the block that comes next, the mean over its heads.

    The block's own norm, queries and keys: nothing is learnt for it, and no gradient goes through the choice.
    """

    @torch.no_grad()
    def scores(self, values: Tensor, valid: Tensor, block: Any) -> Tensor:
        """(images, patches), in [0, 1], float32: the class token's attention over itself and the patches there are.

        What a head spends on the class token it does not spend on patches: such a head says less in the mean.
        """
        attention = block.attn
        # Normed keys would have to be made; no backbone here has any.
        assert isinstance(attention.q_norm, nn.Identity)
        assert isinstance(attention.k_norm, nn.Identity)
        inner = attention.num_heads * attention.head_dim
        weight, bias = attention.qkv.weight, attention.qkv.bias
        with outside_autocast(values):
            normed = block.norm1(values)
            query = nn.functional.linear(normed[:, 0], weight[:inner], bias[:inner])
            query = query.unflatten(1, (attention.num_heads, attention.head_dim))
            logits = asked(query, weight[inner : 2 * inner], bias[inner : 2 * inner], normed).transpose(1, 2)
        there = nn.functional.pad(valid, (1, 0), value=True)
        return logits.masked_fill(~there[:, None], -torch.inf).softmax(-1)[:, :, 1:].mean(1)


class AttentionDropping(BudgetedDropping):
    """See `BudgetedDropping`."""

    dropper = AttentionDropper

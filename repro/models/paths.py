"""Stochastic depth that does not compute what it drops.

An image whose path is dropped adds nothing to its residual stream: its part of the products, forward and backward, can
be left out. The draws are timm's, and so are the numbers, but for the order in which products are summed up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor

Branch = Callable[[Tensor, Tensor | None], Tensor]


class PathSkippingBlock(Block):  # type: ignore[misc]
    """timm's transformer block; in training on a CPU, paths go through it of those images only that keep theirs.

    On a GPU, which would have to be waited for to know how many those are, and where torch compiles, whose shapes may
    not change, it is timm's.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(images, tokens, width) to the same; `attn_mask` (images or 1, heads or 1, tokens or 1, tokens)."""
        if not self.training or x.device.type != "cpu" or torch.compiler.is_compiling():
            whole: Tensor = super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
            return whole
        x = _added(x, self.drop_path1, lambda y, m: self._attended(y, m, is_causal), attn_mask)
        return _added(x, self.drop_path2, lambda y, _: self.ls2(self.mlp(self.norm2(y))), None)

    def _attended(self, x: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        found: Tensor = self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal))
        return found


def _added(x: Tensor, path: Any, branch: Branch, mask: Tensor | None) -> Tensor:
    """x + path(branch(x)), where `path` is timm's `DropPath` or the identity."""
    images = len(x)
    if not getattr(path, "drop_prob", 0.0):
        return x + branch(x, mask)
    factor: Tensor = path(x.new_ones(images, 1, 1))
    kept = factor.flatten().nonzero().flatten()
    if len(kept) in (0, images):  # with none at all the weights would be left without a gradient, which is not zero
        added = branch(x, mask)
        return x + added * factor.to(added.dtype)
    added = branch(x.index_select(0, kept), mask if mask is None or len(mask) == 1 else mask.index_select(0, kept))
    return x.index_add(0, kept, (added * factor.index_select(0, kept).to(added.dtype)).to(x.dtype))

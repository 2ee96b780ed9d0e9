"""Stochastic depth that does not compute dropped paths.

A dropped path adds nothing to the residual stream of its image, so its forward and backward products can be skipped.
Random draws are the same as timm's, and results agree up to the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor

Branch = Callable[[Tensor, Tensor | None], Tensor]


class PathSkippingBlock(Block):  # type: ignore[misc]
    """timm's transformer block, except that training on a CPU computes a branch only for the images that keep it.

    On a GPU, counting these images would synchronize with the device, and compiled code needs static shapes: in both
    cases, the block is timm's.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map (images, tokens, width) to the same shape.

        `attn_mask` is (images or 1, heads or 1, tokens or 1, tokens).
        """
        if not self.training or x.device.type != "cpu" or torch.compiler.is_compiling():
            output: Tensor = super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
            return output
        x = _add_branch(x, self.drop_path1, lambda y, m: self._attend(y, m, is_causal), attn_mask)
        return _add_branch(x, self.drop_path2, lambda y, _: self.ls2(self.mlp(self.norm2(y))), None)

    def _attend(self, x: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        output: Tensor = self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal))
        return output


def _add_branch(x: Tensor, path: Any, branch: Branch, mask: Tensor | None) -> Tensor:
    """Return x + path(branch(x)), where `path` is timm's `DropPath` or the identity."""
    images = len(x)
    if not getattr(path, "drop_prob", 0.0):
        return x + branch(x, mask)
    factor: Tensor = path(x.new_ones(images, 1, 1))
    kept = factor.flatten().nonzero().flatten()
    if len(kept) in (0, images):  # without any image, the weights would get no gradient instead of a zero gradient
        output = branch(x, mask)
        return x + output * factor.to(output.dtype)
    output = branch(x.index_select(0, kept), mask if mask is None or len(mask) == 1 else mask.index_select(0, kept))
    return x.index_add(0, kept, (output * factor.index_select(0, kept).to(output.dtype)).to(x.dtype))

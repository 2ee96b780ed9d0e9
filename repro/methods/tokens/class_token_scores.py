"""Attention logits of the class token over all patches, computed without keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def class_token_logits(query: Tensor, weight: Tensor, bias: Tensor | None, values: Tensor) -> Tensor:
    """Compute q_h . k_ih / sqrt(d) for every patch i and head h, where k_ih = W_h x_i + b_h.

    As q_h . (W_h x_i + b_h) = (W_h^T q_h) . x_i + q_h . b_h, the product with W is needed once per image, not once per
    patch.

    Args:
        query: (images, heads, d).
        weight, bias: of the key projection, (heads * d, width) and (heads * d,), with the rows of a head contiguous.
        values: the input of the key projection, (images, patches, width).

    Returns (images, patches, heads) in float32, regardless of the precision of the arguments.
    """
    _, heads, d = query.shape
    scaled = query.float().transpose(0, 1) / math.sqrt(d)
    projected = torch.bmm(scaled, weight.float().view(heads, d, -1)).permute(1, 2, 0)  # (images, width, heads)
    if bias is None:
        return torch.bmm(values.float(), projected)
    offset = (scaled * bias.float().view(heads, 1, d)).sum(2).t()
    return torch.baddbmm(offset[:, None], values.float(), projected)

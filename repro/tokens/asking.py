"""What the class token asks of every patch, without a key for any of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def asked(query: Tensor, weight: Tensor, bias: Tensor | None, values: Tensor) -> Tensor:
    """q_h . k_ih / sqrt(d) of every patch i and head h, where k_ih = W_h x_i + b_h.

    One query an image needs no keys: q_h . (W_h x_i + b_h) = (W_h^T q_h) . x_i + q_h . b_h. Instead of a product with
    all of W for each patch there is one for each image, and `heads` rows for each patch.

    Args:
        query: (images, heads, d).
        weight, bias: of the layer that makes keys, (heads x d, width) and (heads x d,), a head's rows side by side.
        values: (images, patches, width), what that layer would be given.

    Returns float32 (images, patches, heads), of half precision only what it is given.
    """
    _, heads, d = query.shape
    scaled = query.float().transpose(0, 1) / math.sqrt(d)
    read = torch.bmm(scaled, weight.float().view(heads, d, -1)).permute(1, 2, 0)  # (images, width, heads)
    if bias is None:
        return torch.bmm(values.float(), read)
    own = (scaled * bias.float().view(heads, 1, d)).sum(2).t()
    return torch.baddbmm(own[:, None], values.float(), read)

"""Heat maps of one image over its patches, and their conversion to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from repro.models.token_dropping import Trace


def score_map(traces: Sequence[Trace]) -> Tensor:
    """Return the mean score of each patch over the stages of a token selector, float32 (patches,).

    A patch that was dropped before a stage scores 0 in that stage, the minimum score of selectors with stages.
    """
    return torch.stack([trace.scores[0].float().nan_to_num(0.0) for trace in traces]).mean(0)


def class_attention(maps: Sequence[Tensor]) -> Tensor:
    """Return the class token's attention to each patch in the last block: (patches,)."""
    return maps[-1][0, 1:]


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """Return the attention rollout from each input patch to the class token: (patches,).

    The product of (A + I) / 2 over blocks, where the identity accounts for the residual connection.
    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020).
    """
    flow = torch.eye(len(maps[0]))
    for attention in maps:
        flow = (attention + torch.eye(len(attention))) / 2 @ flow
    return flow[0, 1:]


def to_pixels(heat: Tensor, size: int) -> Tensor:
    """Upsample a heat map of a square grid of patches, (patches,), to (size, size) pixels, bilinearly."""
    side = math.isqrt(len(heat))
    grid = heat.view(1, 1, side, side)
    return torch.nn.functional.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)[0, 0]

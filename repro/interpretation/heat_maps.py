"""Heat maps over an image's patches, and from patches to pixels. All of one image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from repro.tokens.dropping import Trace


def score_map(traces: Sequence[Trace]) -> Tensor:
    """What a token selector thinks of each patch: the mean of its scores over stages, float32 (patches,).

    A patch that was dropped before a stage scores 0 in it, the least there is: selectors in stages score in [0, 1].
    """
    return torch.stack([trace.scores[0].float().nan_to_num(0.0) for trace in traces]).mean(0)


def class_attention(maps: Sequence[Tensor]) -> Tensor:
    """How much the class token takes of each patch in the last block: (patches,)."""
    return maps[-1][0, 1:]


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """How much of each input patch reaches the class token through all blocks: (patches,).

    The product of (A + I) / 2 over blocks, the identity for the residual connection.
    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), attention rollout.
    """
    flow = torch.eye(len(maps[0]))
    for attention in maps:
        flow = (attention + torch.eye(len(attention))) / 2 @ flow
    return flow[0, 1:]


def to_pixels(heat: Tensor, size: int) -> Tensor:
    """The heat of a square grid's patches, (patches,), as (size, size) pixels: bilinear between their centres."""
    side = math.isqrt(len(heat))
    grid = heat.view(1, 1, side, side)
    return torch.nn.functional.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)[0, 0]

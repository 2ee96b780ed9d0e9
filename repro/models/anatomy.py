"""What a finished model looks like inside: heads that speak, and the patches that its selector keeps of real images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from repro.config import Config
from repro.models.export import masked_model
from repro.models.shrink import speaking_heads
from repro.runs.record import ANATOMY_SCHEMA
from repro.tokens.dropping import tracing

IMAGES = 8


@torch.inference_mode()
def anatomy(config: Config, weights: dict[str, Tensor], images: Tensor) -> dict[str, Any]:
    """What a report draws of a model, as JSON values.

    Args:
        config: the run's.
        weights: its model's state dict, zero where it is sparse.
        images: (N, channels, height, width), normalised as in training; the first eight are drawn. Of clips, (N,
            frames, channels, height, width), the first eight frames are.

    Returns `heads` (layers x heads, whether each speaks; empty for a model whose heads cannot be removed); where
    patches are dropped `images` (N x height x width, grey from 0 to 1), `kept` (stages x N x patches, whether each
    stays) and `patch_size` (pixels).
    """
    model = masked_model(config, weights)
    blocks: Any = getattr(model, "blocks", ())
    heads = torch.zeros(len(blocks), config.model.units.get("heads", 0), dtype=torch.bool)
    for layer, block in enumerate(blocks if heads.shape[1] else ()):
        heads[layer, speaking_heads(block.attn)] = True
    found: dict[str, Any] = {"schema": ANATOMY_SCHEMA, "heads": heads.tolist()}
    if config.method.tokens is not None:
        some = images[:IMAGES]
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (config.data.mean, config.data.std))
        grey = (some * std + mean).mean(-3).clamp(0, 1)
        kept = kept_patches(model, some)
        if kept is not None and some.dim() == 5:  # places by frames, as images of one frame each
            kept = kept.unflatten(2, (-1, some.shape[1])).transpose(2, 3).flatten(1, 2)[:, :IMAGES]
            grey = grey.flatten(0, 1)[:IMAGES]
        if kept is not None:
            found["images"] = [[[round(value, 3) for value in row] for row in image] for image in grey.tolist()]
            found["kept"] = kept.tolist()
            found["patch_size"] = config.model.image_size // math.isqrt(kept.shape[2])
    return found


def kept_patches(model: nn.Module, images: Tensor) -> Tensor | None:
    """Bool (stages, N, patches): which patches the model goes on with after each stage; None where it drops none."""
    with tracing(model) as traces:
        model(images)
    return torch.stack([trace.kept for trace in traces]) if traces else None

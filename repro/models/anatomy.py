"""What a finished model looks like inside: heads that speak, and the patches that its selector keeps of real images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.config import Config, Geometry
from repro.models.export import masked_model
from repro.models.shrink import speaking_heads

IMAGES = 8
SCHEMA = 1


@torch.inference_mode()
def anatomy(config: Config, weights: dict[str, Tensor], images: Tensor) -> dict[str, Any]:
    """What a report draws of a model, as JSON values.

    Args:
        config: the run's.
        weights: its model's state dict, zero where it is sparse.
        images: (N, channels, height, width), normalised as in training; the first eight are drawn.

    Returns `heads` (layers x heads, whether each speaks; none of a ResNet); with a token selector `images` (N x height
    x width, grey from 0 to 1), `kept` (N x patches, whether each stays) and `patch_size` in pixels.
    """
    if not isinstance(config.model, Geometry):
        return {"schema": SCHEMA, "heads": []}
    model = masked_model(config, weights)
    blocks: Any = model.blocks
    heads = torch.zeros(len(blocks), config.model.num_heads, dtype=torch.bool)
    for layer, block in enumerate(blocks):
        heads[layer, speaking_heads(block.attn)] = True
    found: dict[str, Any] = {"schema": SCHEMA, "heads": heads.tolist()}
    if config.method.tokens is not None:
        some = images[:IMAGES]
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (config.data.mean, config.data.std))
        grey = (some * std + mean).mean(1).clamp(0, 1)
        found["images"] = [[[round(value, 3) for value in row] for row in image] for image in grey.tolist()]
        found["kept"] = kept_patches(model, some).tolist()
        found["patch_size"] = config.model.patch_size
    return found


def kept_patches(model: nn.Module, images: Tensor) -> Tensor:
    """Bool (N, patches): which patches the model's selector keeps; read by what the selector does to marked tokens."""
    selector: Any = model.patch_drop
    seen: list[Tensor] = []
    handle = selector.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    model(images)
    handle.remove()
    before, after = seen
    # A token that stays comes out as it went in, or, where the released code multiplies, is not zero.
    alike = (before[:, 1:, None] - after[:, None, 1:]).abs().amax(-1) < 1e-6
    return alike.any(2)

"""Vision transformers, all built by timm's class: at paper size and in the small sizes of the local scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from repro.models.paths import PathSkippingBlock

if TYPE_CHECKING:
    from repro.geometry import ViT


def build_vit(geometry: ViT, drop_path: float, seed: int, block: type[Block] = PathSkippingBlock) -> nn.Module:
    """A vision transformer, its weights drawn from `seed` alone.

    Args:
        geometry: its shape; `deit_*_patch16_224` of timm has the same class and the same arguments.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
        block: its blocks' class.
    """
    sizes: dict[str, Any] = {
        "img_size": geometry.image_size,
        "patch_size": geometry.patch_size,
        "in_chans": geometry.in_chans,
        "num_classes": geometry.num_classes,
        "embed_dim": geometry.embed_dim,
        "depth": geometry.depth,
        "num_heads": geometry.num_heads,
        "mlp_ratio": geometry.mlp_ratio,
        "weight_init": geometry.weight_init,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = VisionTransformer(**sizes, qkv_bias=True, drop_path_rate=drop_path, block_fn=block)
    return model

"""timm's vision transformers, at the published size and at the small sizes of the local scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

if TYPE_CHECKING:  # benchmarks build models on machines without pydantic
    from repro.counting.geometry import ViT


def build_vit(geometry: ViT, drop_path: float, seed: int) -> nn.Module:
    """Build a vision transformer, with weights drawn from `seed`.

    Args:
        geometry: shape of the network; that of timm's `deit_*_patch16_224` gives the same model.
        drop_path: stochastic depth rate of the last block; it increases linearly from 0 at the first.
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
        model: Any = VisionTransformer(**sizes, qkv_bias=True, drop_path_rate=drop_path)
        position_std = getattr(geometry, "position_std", None)  # benchmarks leave it out
        if position_std is not None:
            nn.init.trunc_normal_(model.pos_embed, std=position_std)
    built: nn.Module = model
    return built

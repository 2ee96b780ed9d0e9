"""Builds the model of a geometry. The only module that refers to all families of backbones."""

from __future__ import annotations

from torch import nn

from repro.counting.geometry import Geometry, TimeSformer, ViT
from repro.models.resnet import build_resnet
from repro.models.vit import build_vit


def build_model(geometry: Geometry, drop_path: float, seed: int) -> nn.Module:
    """Build a backbone of this geometry, with weights drawn from `seed`.

    Args:
        drop_path: stochastic depth rate of the last block; it increases linearly from 0 at the first.
    """
    if isinstance(geometry, ViT):
        return build_vit(geometry, drop_path, seed)
    if isinstance(geometry, TimeSformer):
        from repro.models.timesformer import build_timesformer  # transformers is optional, and slow to import

        return build_timesformer(geometry, drop_path, seed)
    return build_resnet(geometry, drop_path, seed)

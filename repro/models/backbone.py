"""From a geometry to its model: the one place that knows which families there are."""

from __future__ import annotations

from torch import nn

from repro.geometry import Geometry, TimeSformer, ViT
from repro.models.resnet import build_resnet
from repro.models.vit import build_vit


def build_model(geometry: Geometry, drop_path: float, seed: int) -> nn.Module:
    """A backbone of this geometry, its weights drawn from `seed` alone.

    Args:
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
    """
    if isinstance(geometry, ViT):
        return build_vit(geometry, drop_path, seed)
    if isinstance(geometry, TimeSformer):
        from repro.models.timesformer import build_timesformer  # transformers is an extra, and slow to import

        return build_timesformer(geometry, drop_path, seed)
    return build_resnet(geometry, drop_path, seed)

"""A backbone from its geometry, whatever its family."""

from __future__ import annotations

from torch import nn

from repro.config import AnyGeometry, ResNetGeometry
from repro.models.resnet import build_resnet
from repro.models.vit import build_vit


def build_model(geometry: AnyGeometry, drop_path: float, seed: int) -> nn.Module:
    """A backbone, its weights drawn from `seed` alone; `drop_path` as in `build_vit` and `build_resnet`."""
    if isinstance(geometry, ResNetGeometry):
        return build_resnet(geometry, drop_path, seed)
    return build_vit(geometry, drop_path, seed)

"""ResNets of bottlenecks, all built by timm's class: at paper size and in the small size of the local scale."""

from __future__ import annotations

import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from repro.config import ResNetGeometry
from repro.measure.layers import STEM_WIDTH


def build_resnet(geometry: ResNetGeometry, drop_path: float, seed: int) -> nn.Module:
    """A ResNet, its weights drawn from `seed` alone.

    Args:
        geometry: its shape; `resnet50` of timm has the same class and the same arguments. Another stem than its 7x7
            convolution of stride 2 and pooling replaces those two modules, and nothing else.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = ResNet(
            Bottleneck,
            geometry.stage_depths,
            num_classes=geometry.num_classes,
            in_chans=geometry.in_chans,
            channels=geometry.stage_channels,
            drop_path_rate=drop_path,
        )
        if (geometry.stem_kernel, geometry.stem_stride) != (7, 2):
            kernel = geometry.stem_kernel
            model.conv1 = nn.Conv2d(
                geometry.in_chans, STEM_WIDTH, kernel, geometry.stem_stride, kernel // 2, bias=False
            )
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        if not geometry.stem_pool:
            model.maxpool = nn.Identity()
    return model

"""timm's residual networks, at the published size and at the small sizes of the local scale."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.resnet import Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import nn

from repro.counting.geometry import STEM_CHANNELS, ResNet


def build_resnet(geometry: ResNet, drop_path: float, seed: int) -> nn.Module:
    """Build a residual network of bottleneck blocks, with weights drawn from `seed`.

    Args:
        geometry: shape of the network; that of timm's `resnet50` gives the same model.
        drop_path: stochastic depth rate of the last block; it increases linearly from 0 at the first.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = TimmResNet(
            Bottleneck,
            geometry.blocks,
            num_classes=geometry.num_classes,
            in_chans=geometry.in_chans,
            channels=geometry.channels,
            drop_path_rate=drop_path,
        )
        if geometry.stem == "small":  # common for small images; timm has no argument for it
            model.conv1 = nn.Conv2d(geometry.in_chans, STEM_CHANNELS, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
    resnet: nn.Module = model
    return resnet

"""Residual networks, all built by timm's class: at paper size and in the small sizes of the local scale."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.resnet import Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import nn

from repro.geometry import STEM_CHANNELS, ResNet


def build_resnet(geometry: ResNet, drop_path: float, seed: int) -> nn.Module:
    """A residual network of bottleneck blocks, its weights drawn from `seed` alone.

    Args:
        geometry: its shape; timm's `resnet50` has the same class and the same arguments.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
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
        if geometry.stem == "small":  # what everybody does to this network for small images; timm has no argument
            model.conv1 = nn.Conv2d(geometry.in_chans, STEM_CHANNELS, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
    built: nn.Module = model
    return built

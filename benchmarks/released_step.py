"""A training step in the style of the papers' released code: the reference for our measurements.

Written independently: eager; attention as softmax(Q K^T) V with all scores stored; the optimizer updates one weight at
a time; masks of the weights' dtype are multiplied out of place after every step and broadcast to all ranks; the loss is
read back after every step. Model, mixup and loss are the same as in ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ReleasedStep:
    """Runs forward, backward, the optimizer and the masks.

    Args:
        model: a timm vision transformer; its fused attention is switched off.
        mixup: mixes images and labels, as timm's does; None for no mixing.
        masks: bool masks by layer name; None for dense training.
        amp: whether to use mixed precision in bfloat16.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        mixup: Any = None,
        masks: Mapping[str, Tensor] | None = None,
        lr: float = 1e-4,
        amp: bool = False,
    ) -> None:
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        self.model, self.loss, self.mixup, self.amp = model, loss, mixup, amp
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, foreach=False, fused=False)
        self.layers = dict(model.named_modules())
        self.masks = {name: mask.to(self.layers[name].weight.dtype) for name, mask in (masks or {}).items()}

    def __call__(self, images: Tensor, labels: Tensor) -> float:
        """Run one step and return the loss. Raises `ValueError` if the loss is not finite."""
        if self.mixup is not None:
            images, labels = self.mixup(images, labels)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
            loss = self.loss(self.model(images), labels)
        value = float(loss.item())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value}")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for name, mask in self.masks.items():
            weight: Any = self.layers[name].weight
            weight.data = weight.data * mask
            if dist.is_initialized():
                dist.broadcast(weight.data, 0)
        return value

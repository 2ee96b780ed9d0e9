"""A training step in the style of the code that was released with the papers: what ours is measured against.

Written anew, from what such code does: eager; attention as softmax(Q K^T) V with every score kept; one weight after the
other in the optimizer; masks of the weights' own type multiplied out of place after every step and sent to all ranks;
the loss read back after every step. Model, mixing of images and loss are the same as in ours: nothing else differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ReleasedStep:
    """Forward, backward, optimizer, masks.

    Args:
        model: a timm vision transformer; it attends explicitly from then on.
        mixup: mixes images and labels, as timm's; None leaves them.
        masks: bool, by the name of the layer; None trains densely.
        amp: mixed precision in bfloat16.
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
        """One step; returns the loss. Raises `ValueError` for one that is not finite."""
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

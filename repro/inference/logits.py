"""Logits of a model in evaluation mode, reproducible for models that sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def logits_of(model: nn.Module, images: Tensor, seed: int = 0) -> Tensor:
    """Return the logits of a model in evaluation mode; a token selection that samples is seeded with `seed`."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logits: Tensor = model(images)
    return logits

"""The logits of a model in evaluation mode, which are reproducible even if the model samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def logits_of(model: nn.Module, images: Tensor, seed: int = 0) -> Tensor:
    """Return the logits of a model in evaluation mode; `seed` seeds a token selection that samples."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logits: Tensor = model(images)
    return logits

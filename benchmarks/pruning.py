"""Models as sparse training produces them, but without training: the active weights are chosen at random."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def prune(model: nn.Module, sparsity: float, block: int) -> None:
    """Zero a random share of the weight blocks in every linear layer of the transformer's blocks."""
    draw = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if name.startswith("blocks.") and isinstance(module, nn.Linear):
            rows, columns = (size // block for size in module.weight.shape)
            kept = torch.rand(rows, columns, generator=draw) >= sparsity
            module.weight.mul_(kept.repeat_interleave(block, 0).repeat_interleave(block, 1))

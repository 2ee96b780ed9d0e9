"""Activation checkpointing: blocks store only their inputs, and recompute the rest in the backward pass.

timm's `set_grad_checkpointing` would run the blocks in sequence and skip token droppers between them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class CheckpointedBlocks(nn.Sequential):
    """The same blocks under the same names, each checkpointed."""

    def forward(self, values: Tensor) -> Tensor:
        """Run all blocks. Recomputed blocks drop the same paths."""
        for block in self:
            values = checkpoint(block, values, use_reentrant=False)
        return values


def checkpoint_activations(model: Any) -> None:
    """Checkpoint every block of a model, in place.

    Blocks with an attribute `checkpointing` checkpoint themselves. The model must not have batch norms, whose
    statistics would see each batch twice.
    """
    if hasattr(model.blocks, "checkpointing"):
        model.blocks.checkpointing = True
    else:
        model.blocks = CheckpointedBlocks(*model.blocks)

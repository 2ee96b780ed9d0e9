"""Activation checkpointing: blocks store only their inputs, and recompute the rest in the backward pass.

timm's `set_grad_checkpointing` would run the blocks in sequence and skip token droppers between them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from repro.errors import UserError


class CheckpointedBlocks(nn.Sequential):
    """The same blocks under the same names, each checkpointed."""

    def forward(self, values: Tensor) -> Tensor:
        """Run all blocks. Recomputed blocks drop the same paths."""
        for block in self:
            values = checkpoint(block, values, use_reentrant=False)
        return values


def checkpoint_activations(model: Any) -> None:
    """Checkpoint every block of a model, in place.

    Blocks with an attribute `checkpointing` checkpoint themselves. Raises `UserError` for a model without transformer
    blocks, or with batch norm.
    """
    blocks: Any = getattr(model, "blocks", None)
    name = type(model).__name__
    if not isinstance(blocks, nn.Sequential):
        raise UserError(f"run.checkpoint_activations=true: {name} has no transformer blocks; set it to false")
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UserError(
            f"run.checkpoint_activations=true: {name} has batch norms, which would count each image twice; set false"
        )
    module: Any = blocks
    if hasattr(module, "checkpointing"):
        module.checkpointing = True
    else:
        model.blocks = CheckpointedBlocks(*blocks)

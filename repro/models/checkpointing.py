"""Activation checkpointing: blocks keep what goes into them, and compute the rest again for the backward pass.

Not timm's own switch: it runs the blocks one after the other, whatever stands between them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from repro.errors import UserError


class CheckpointedBlocks(nn.Sequential):
    """The same blocks under the same names, each of which is checkpointed."""

    def forward(self, values: Tensor) -> Tensor:
        """Through all blocks; random draws (dropped paths) are the same when a block is computed again."""
        for block in self:
            values = checkpoint(block, values, use_reentrant=False)
        return values


def checkpoint_activations(model: Any) -> None:
    """Checkpoint every block of a model, in place.

    Blocks that do not simply follow each other say so by an attribute `checkpointing`, and see to it themselves.

    Raises `UserError` for a model without transformer blocks, or with batch norms.
    """
    blocks = getattr(model, "blocks", None)
    name = type(model).__name__
    if not isinstance(blocks, nn.Sequential):
        raise UserError(f"run.checkpoint_activations=true: {name} has no transformer blocks; set it to false")
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UserError(
            f"run.checkpoint_activations=true: {name} has batch norms, which would count each image twice; set false"
        )
    own: Any = blocks
    if hasattr(own, "checkpointing"):
        own.checkpointing = True
    else:
        model.blocks = CheckpointedBlocks(*blocks)

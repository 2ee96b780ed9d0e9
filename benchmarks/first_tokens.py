"""The limit of what token dropping can save on a device: a row's model that keeps the first tokens without scoring.

It separates the cost of the selection from that of the device, which reads all weights even for few tokens, and
multiplies smaller matrices less efficiently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from repro.config import Config
from repro.config.costs import method_changes
from repro.counting.keep_rates import stage_starts
from repro.inference.build import physical_model


class FirstTokens(nn.Sequential):
    """Transformer blocks; block i processes the first `tokens[i]` tokens of its input."""

    def __init__(self, blocks: Iterable[nn.Module], tokens: Sequence[int]) -> None:
        super().__init__(*blocks)
        self.tokens = tuple(tokens)

    def forward(self, values: Tensor) -> Tensor:
        """Map (images, tokens, width) to (images, tokens of the last block, width)."""
        for block, count in zip(self, self.tokens, strict=True):
            values = block(values[:, :count])
        return values


def tokens_by_block(config: Config) -> list[int]:
    """Return the planned number of tokens that reach each block, including the class token."""
    shape: Any = config.model
    counts = [method_changes(shape, config.method).tokens or shape.tokens] * shape.depth
    rates = config.method.tokens.options.get("keep_rates", []) if config.method.tokens is not None else []
    for start, rate in zip(stage_starts(shape.depth, len(rates)) if rates else (), rates, strict=True):
        counts[start:] = [1 + round(shape.patches * rate)] * (shape.depth - start)
    return counts


def without_selection(config: Config) -> nn.Module:
    """Build the row's physical model, in evaluation mode, over the planned number of tokens: always the first ones."""
    model: Any = physical_model(config)
    model.patch_drop = nn.Identity()
    model.blocks = FirstTokens(list(model.blocks), tokens_by_block(config))
    result: nn.Module = model
    return result

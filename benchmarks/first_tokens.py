"""What fewer tokens can save on a device: a row's model that takes the first ones and chooses nothing.

Beside what token dropping saves it tells what the choosing costs from what the device does not give: weights are read
from memory for few tokens as for many, and products of fewer rows run at another rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from repro.config import Config
from repro.layer import stage_starts
from repro.measure.cost import tokens_kept
from repro.measure.timed_rows import physical_model


class FirstTokens(nn.Sequential):
    """Transformer blocks, each over the first `tokens` of what the one before it has left."""

    def __init__(self, blocks: Iterable[nn.Module], tokens: Sequence[int]) -> None:
        super().__init__(*blocks)
        self.tokens = tuple(tokens)

    def forward(self, values: Tensor) -> Tensor:
        """(images, tokens, width) to (images, tokens of the last block, width)."""
        for block, count in zip(self, self.tokens, strict=True):
            values = block(values[:, :count])
        return values


def tokens_by_block(config: Config) -> list[int]:
    """How many tokens of an image reach each block as the row is planned, the class token among them."""
    shape: Any = config.model
    counts = [tokens_kept(shape, config.method.tokens)] * shape.depth
    rates = config.method.tokens.keep_rates if config.method.tokens is not None else []
    for start, rate in zip(stage_starts(shape.depth, len(rates)) if rates else (), rates, strict=True):
        counts[start:] = [1 + round(shape.patches * rate)] * (shape.depth - start)
    return counts


def without_choosing(config: Config) -> nn.Module:
    """The row's model, as small as it gets, over as many tokens, which are the first ones; in evaluation mode."""
    model: Any = physical_model(config)
    model.patch_drop = nn.Identity()
    model.blocks = FirstTokens(list(model.blocks), tokens_by_block(config))
    whole: nn.Module = model
    return whole

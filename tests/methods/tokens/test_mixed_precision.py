"""Which tokens stay is decided in float32, whatever the recipe's `amp` is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_runs import small_config
from torch import Tensor

from repro.methods.tokens.attention_dropping import AttentionDropper
from repro.methods.tokens.interpreter import Interpreter
from repro.methods.tokens.svite_plus import TokenSelector
from repro.models.backbone import build_model
from repro.models.token_dropping import tracing

IMAGES, PATCHES, WIDTH = 4, 16, 12
VALUES = 3 * torch.randn(IMAGES, 1 + PATCHES, WIDTH, generator=torch.Generator().manual_seed(0))


def by_attention(values: Tensor) -> Tensor:
    model = build_model(small_config("method=dense").model, 0.0, 0)
    there = torch.ones(IMAGES, PATCHES, dtype=torch.bool)
    return AttentionDropper(0.5, PATCHES).scores(values, there, model.blocks[0])  # type: ignore[index, union-attr]


def by_an_interpreter(values: Tensor) -> Tensor:
    torch.manual_seed(0)
    return Interpreter(WIDTH, 3, PATCHES, threshold=0.5, initial_logit=1.0).scores(values)


def by_a_selector(values: Tensor) -> Tensor:
    torch.manual_seed(0)
    selector = TokenSelector(WIDTH, 8, "gather", 1.0).eval()
    with tracing(selector) as traces:
        selector(values)
    (trace,) = traces
    return trace.scores


@pytest.mark.parametrize("scores", [by_attention, by_an_interpreter, by_a_selector])
def test_scores_are_those_of_float32_bit_for_bit(scores: Callable[[Tensor], Tensor]) -> None:
    expected = scores(VALUES)
    with torch.autocast("cpu", torch.bfloat16):
        assert (VALUES @ VALUES.mT).dtype == torch.bfloat16, "mixed precision is on"
        found = scores(VALUES)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert len(expected.unique()) == expected.numel(), "no two patches tie, as they would in 8 bits"


@pytest.mark.parametrize("scores", [by_an_interpreter, by_a_selector])
def test_what_comes_after_is_in_mixed_precision_again(scores: Callable[[Tensor], Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scores(VALUES)
        assert (VALUES @ VALUES.mT).dtype == torch.bfloat16

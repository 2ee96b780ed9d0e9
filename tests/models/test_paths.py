"""Stochastic depth that leaves out what it drops, against timm's, which computes all of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor

from repro.models.drop_path import PathSkippingBlock

IMAGES, TOKENS, WIDTH = 8, 5, 12
VALUES = torch.randn(IMAGES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
HIDDEN = torch.rand(IMAGES, 1, 1, TOKENS, generator=torch.Generator().manual_seed(2)) < 0.7
HIDDEN[..., 0] = True
SPLIT = 0.4  # a rate at which some of eight images keep a path and some do not


def blocks(rate: float) -> tuple[Any, Any]:
    """timm's and ours, of the same weights."""
    torch.manual_seed(0)
    timms = Block(WIDTH, 3, qkv_bias=True, drop_path=rate).train()
    ours = PathSkippingBlock(WIDTH, 3, qkv_bias=True, drop_path=rate).train()
    ours.load_state_dict(timms.state_dict())
    return timms, ours


def passed(block: Any, mask: Tensor | None, amp: bool = False) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Output, gradient of the input, state of the generator, gradients of the weights."""
    values = VALUES.clone().requires_grad_()
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        out = block(values, attn_mask=mask)
    out.square().sum().backward()
    assert values.grad is not None
    return out, values.grad, torch.get_rng_state(), {name: each.grad for name, each in block.named_parameters()}


def images_of(block: Any) -> list[int]:
    """How many images go through attention and through the MLP."""
    seen: list[int] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        for layer in (block.attn.qkv, block.mlp.fc1)
    ]
    passed(block, None)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("rate", [0.0, SPLIT, 0.9999])
@pytest.mark.parametrize("mask", [None, HIDDEN, HIDDEN[:1]])
def test_numbers_gradients_and_draws_are_timms(rate: float, mask: Tensor | None) -> None:
    theirs, ours = (passed(block, mask) for block in blocks(rate))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(ours[2], theirs[2]), "the next draw is the same"
    for name, gradient in theirs[3].items():
        torch.testing.assert_close(ours[3][name], gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_mixed_precision_rounds_as_timms() -> None:
    theirs, ours = (passed(block, None, amp=True) for block in blocks(SPLIT))
    assert ours[0].dtype == theirs[0].dtype == torch.float32
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-6)


def test_only_images_that_keep_their_path_are_computed() -> None:
    timms, ours = blocks(SPLIT)
    assert images_of(timms) == [IMAGES, IMAGES]
    torch.manual_seed(3)
    kept = [int(DropPath(SPLIT)(torch.ones(IMAGES, 1, 1)).count_nonzero()) for _ in range(2)]
    assert images_of(ours) == kept
    assert all(0 < count < IMAGES for count in kept), "or this test says nothing"


def test_weights_have_a_gradient_of_zero_where_every_path_is_dropped() -> None:
    """None would let an optimizer pass them over, and a method that scores by gradients fail."""
    _, ours = blocks(0.9999)
    assert all(gradient is not None and not gradient.any() for gradient in passed(ours, None)[3].values())


def test_evaluation_and_copies_drop_nothing() -> None:
    timms, ours = blocks(SPLIT)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(ours).eval()(VALUES), timms.eval()(VALUES))

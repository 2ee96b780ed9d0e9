"""The recorder of matrix products that the limit of a training step rests on."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.products import Products

aten = torch.ops.aten


def test_forward_and_backward_of_a_linear_layer_are_three_products() -> None:
    layer, tokens = nn.Linear(3, 5), torch.randn(7, 3, requires_grad=True)
    products = Products()
    with products:
        layer(tokens).sum().backward()
    found = {
        (operator, tuple(one.shape for one in layouts)): n for (operator, layouts, _), n in products.counts.items()
    }
    assert found == {
        (aten.addmm.default, ((7, 3), (3, 5))): 1,
        (aten.mm.default, ((7, 5), (5, 3))): 1,  # gradient of the tokens
        (aten.mm.default, ((5, 7), (7, 3))): 1,  # gradient of the weights
    }


def test_fused_attention_and_convolution_count_and_every_product_is_timed() -> None:
    embed = nn.Conv2d(3, 4, 4, 4)
    products = Products()
    with products:
        for _ in range(2):
            tokens = embed(torch.randn(2, 3, 8, 8)).flatten(2).mT.unsqueeze(1).contiguous()
            nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).sum().backward()
    names = {operator.name().split("::")[1]: count for (operator, _, _), count in products.counts.items()}
    assert names == {
        "convolution": 2,
        "convolution_backward": 2,
        "_scaled_dot_product_flash_attention_for_cpu": 2,
        "_scaled_dot_product_flash_attention_for_cpu_backward": 2,
    }
    assert products.least_s(rounds=1) > 0

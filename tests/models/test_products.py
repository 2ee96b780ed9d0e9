"""Linear layers that train with oneDNN's products: the same numbers, and only where it is meant."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.cases import Training
from benchmarks.composed import case_of
from repro.composition import compose
from repro.models import products
from repro.models.products import LEAST_ROWS, LEAST_WIDTH, OneDNNLinear, use_onednn

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch is built without oneDNN"
)
CPU = torch.device("cpu")


def both(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(LEAST_WIDTH, LEAST_WIDTH + 40, bias=bias)
    fast = copy.deepcopy(plain)
    use_onednn(fast)
    assert type(fast) is OneDNNLinear
    return plain, fast


def passes(layer: nn.Linear, inputs: Tensor) -> list[Tensor]:
    """Outputs, and the gradients of inputs, weight and bias, of a loss that weighs outputs unequally."""
    own = inputs.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    outputs = layer(own)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    found = [outputs.detach(), own.grad, layer.weight.grad, layer.bias.grad if layer.bias is not None else None]
    return [each for each in found if each is not None]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_the_products_are_those_of_a_linear_layer(bias: bool, order: tuple[int, int, int]) -> None:
    plain, fast = both(bias)
    inputs = torch.randn(4, LEAST_ROWS // 4, LEAST_WIDTH).permute(order)
    for expected, found in zip(passes(plain, inputs), passes(fast, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert found.shape == expected.shape
    assert all(map(torch.equal, passes(both(bias)[1], inputs), passes(both(bias)[1], inputs))), "the same bits again"


@pytest.mark.parametrize("learning", ["inputs", "weight", "bias"])
def test_only_what_learns_has_a_gradient_and_keeps_what_it_needs(learning: str) -> None:
    _, fast = both()
    inputs = torch.randn(LEAST_ROWS, LEAST_WIDTH)
    own = {"inputs": inputs, "weight": fast.weight, "bias": fast.bias}
    for name, tensor in own.items():
        tensor.requires_grad_(name == learning)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        outputs = fast(inputs)
    outputs.sum().backward()
    assert [name for name, tensor in own.items() if tensor.grad is not None] == [learning]
    needed = {"inputs": [fast.weight.shape], "weight": [inputs.shape], "bias": []}
    assert [tensor.shape for tensor in kept] == needed[learning]


@pytest.mark.parametrize("how", ["no gradient", "few rows", "bfloat16", "float64"])
def test_everything_else_is_as_it_was(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = both()
    rows = LEAST_ROWS - 1 if how == "few rows" else LEAST_ROWS
    inputs = torch.randn(rows, LEAST_WIDTH)
    monkeypatch.setattr(products, "product", None)
    if how == "float64":
        inputs, plain, fast = inputs.double(), plain.double(), fast.double()
    with torch.set_grad_enabled(how != "no gradient"), torch.autocast("cpu", torch.bfloat16, how == "bfloat16"):
        expected, found = plain(inputs), fast(inputs)
    assert torch.equal(expected, found)
    assert found.dtype == {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(how, torch.float32)


def test_narrow_layers_and_others_stay_what_they_are() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(LEAST_WIDTH, LEAST_WIDTH - 1), Own(400, 400), nn.Linear(400, 400), nn.GELU())
    before = copy.deepcopy(model.state_dict())
    use_onednn(model)
    assert [type(module) for module in model] == [nn.Linear, Own, OneDNNLinear, nn.GELU]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def trained(is_faster: bool, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr("repro.training.step.is_faster_by_onednn", lambda: is_faster)
    overrides = (
        *("scale=smoke", "backbone=deit_tiny", "method=svite", "tracker=none", f"model.embed_dim={LEAST_WIDTH}"),
        *("model.depth=2", "model.image_size=16", "model.patch_size=4", "recipe.drop_path=0"),
    )
    training = Training(case_of("wide", compose(list(overrides)), 1024), CPU, batch=64)
    calls: list[int] = []
    own = products.product
    monkeypatch.setattr(products, "product", lambda rows, *others: (calls.append(len(rows)), own(rows, *others))[1])
    losses = []
    for _ in range(10):
        training.update()
        losses.append(training.loss())
    # In each update, four layers in each of two blocks, forward and backward.
    assert len(calls) == (10 * 2 * 2 * 4 if is_faster else 0)
    return losses


def test_a_step_takes_them_where_they_are_faster_and_its_losses_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, fast = (trained(is_faster, monkeypatch) for is_faster in (False, True))
    assert max(abs(a - b) for a, b in zip(usual, fast, strict=True)) < 1e-4
    assert usual[-1] != usual[0]

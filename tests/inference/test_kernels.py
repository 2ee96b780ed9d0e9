"""Kernels for sparse layers: equal to the dense layer, selected by measurement, stored in an export."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import METHODS, Weights, resnet_config, small_config, trainer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from repro.config import Config
from repro.errors import UserError
from repro.inference import kernels as kernels_module
from repro.inference.build import masked_model
from repro.inference.export import export, load_exported
from repro.inference.kernel_selection import (
    CONFIRMING_PAIRS,
    PAIRS,
    KernelSearch,
    ZeroCostLinear,
    select_form,
    select_kernels,
)
from repro.inference.kernels import (
    KERNELS,
    Pointwise,
    SparseLinear,
    TrimmedLinear,
    apply_kernels,
    as_linear,
    block_density,
    sparse_layers,
)
from repro.inference.packed import PackedLinear
from repro.inference.shrink import block_sizes
from repro.models.backbone import build_model


def sparse_linear(
    outputs: int, inputs: int, density: float, block: int = 1, seed: int = 0, bias: bool = True
) -> nn.Linear:
    draw = torch.Generator().manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(outputs, inputs, generator=draw))
        kept = torch.rand(-(-outputs // block), -(-inputs // block), generator=draw) < density
        mask = kept.repeat_interleave(block, 0).repeat_interleave(block, 1)[:outputs, :inputs]
        linear.weight.mul_(mask)
        if bias:
            linear.bias.copy_(torch.randn(outputs, generator=draw))
    return linear


def agree(module: nn.Module, linear: nn.Linear, *shape: int) -> None:
    inputs = torch.randn(*shape, linear.in_features, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        expected = linear(inputs)
        found = module(inputs)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@settings(deadline=None)  # the first example compiles
@given(
    outputs=st.integers(1, 40).map(lambda n: 4 * n),
    inputs=st.integers(1, 70),
    tokens=st.integers(1, 300),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    rows=st.sampled_from([1, 4]),
    bias=st.booleans(),
)
def test_a_packed_layer_equals_the_dense_one(
    outputs: int, inputs: int, tokens: int, density: float, rows: int, bias: bool
) -> None:
    """Any size: partial tiles, remaining rows, layers without any weight."""
    linear = sparse_linear(outputs, inputs, density, bias=bias)
    agree(PackedLinear(linear, rows), linear, tokens)


def test_a_packed_layer_by_hand() -> None:
    linear = nn.Linear(3, 4)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [0.0, 3.0, 0.0]]))
        linear.bias.copy_(torch.tensor([0.5, 1.0, 0.0, 0.0]))
    packed = PackedLinear(linear, 1)
    assert packed.starts.tolist() == [0, 1, 1, 3, 4]
    assert packed.columns.tolist() == [1, 0, 2, 1]
    assert packed.values.tolist() == [2, 1, -1, 3]
    assert packed(torch.tensor([[1.0, 10.0, 100.0]])).tolist() == [[20.5, 1.0, -99.0, 30.0]]
    four = PackedLinear(linear, 4)
    assert four.columns.tolist() == [0, 1, 2]
    assert four.values.view(3, 4).tolist() == [[0, 0, 1, 0], [2, 0, 0, 3], [0, 0, -1, 0]]


def test_torch_keeps_its_number_of_threads() -> None:
    """numba starts with all cores and shares OpenMP with torch, so it would change the next timing."""
    code = (
        "import torch; from torch import nn; from repro.inference.packed import PackedLinear\n"
        "torch.set_num_threads(2)\n"
        "PackedLinear(nn.Linear(8, 8), 1)(torch.randn(2, 8))\n"
        "print(torch.get_num_threads())"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": "3", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "2"


def test_a_packed_layer_refuses_other_inputs() -> None:
    with pytest.raises(ValueError, match="must be 1, or 4"):
        PackedLinear(nn.Linear(4, 6), 4)
    with pytest.raises(UserError, match="float32 on a CPU"):
        PackedLinear(nn.Linear(4, 4), 1)(torch.zeros(1, 4, dtype=torch.float64))


@pytest.mark.parametrize("block", [None, 16, 32])
def test_torch_sparse_products_equal_the_dense_one(block: int | None) -> None:
    linear = sparse_linear(64, 96, 0.2, block or 1)
    agree(SparseLinear(linear, block), linear, 3, 17)


def test_trimmed_layers_keep_the_biases_of_removed_rows() -> None:
    linear = sparse_linear(8, 6, 1.0)
    with torch.no_grad():
        linear.weight[[1, 5]] = 0
        linear.weight[:, 2] = 0
    trimmed = TrimmedLinear(linear)
    assert trimmed.weight.shape == (6, 5)
    agree(trimmed, linear, 2, 3)
    assert trimmed(torch.randn(1, 6))[0, 1] == linear.bias[1]


def test_block_kernels_fit_blocks_of_zeros() -> None:
    scattered, blocks = sparse_linear(64, 64, 0.5), sparse_linear(64, 64, 0.5, 32, seed=2)
    assert {name for name, build in KERNELS.items() if build(scattered)} == {"csr", "packed"}
    assert (
        block_density(blocks.weight, 32) == block_density(blocks.weight, 16) < 1 == block_density(scattered.weight, 16)
    )
    assert {name for name, build in KERNELS.items() if build(blocks)} >= {"csr", "bsr", "packed", "packed_blocks"}


@pytest.mark.parametrize(("outputs", "inputs"), [(10, 96), (1000, 384), (16, 10), (48, 96)])
@pytest.mark.parametrize("density", [0.7, 0.74])
def test_blocks_that_do_not_divide_a_layer_are_not_tried(outputs: int, inputs: int, density: float) -> None:
    """Ten classes or a thousand: no multiple of 16. At two thirds and above full blocks look as good as the weights."""
    linear = sparse_linear(outputs, inputs, density)
    built = {name: build(linear) for name, build in KERNELS.items()}
    assert ("bsr" in {name for name, module in built.items() if module is not None}) is (outputs == 48)
    for module in built.values():
        if module is not None:
            agree(module, linear, 3)


class FakeTimer:
    """Returns fixed seconds by the class of a layer; `other` for every other module."""

    def __init__(self, seconds: Mapping[type[nn.Module], float], other: float = 1.0) -> None:
        self.seconds, self.other = seconds, other

    def __call__(self, module: nn.Module, _: torch.Tensor) -> float:
        return self.seconds.get(type(module), self.other)


def test_a_layer_takes_only_kernels_that_fit() -> None:
    """Two densities that round to the same digit, of which only the first fits groups of four rows."""
    model = nn.Sequential(sparse_linear(64, 64, 0.72), sparse_linear(64, 64, 0.655))
    assert kernels_module.has_kernel(model[0], "packed_blocks")
    assert not kernels_module.has_kernel(model[1], "packed_blocks")

    def timer(module: nn.Module, _: torch.Tensor) -> float:
        if isinstance(module, PackedLinear):
            return 0.3 if module.rows == 4 else 0.5
        return 0.9 if isinstance(module, SparseLinear) else 1.0

    choices = select_kernels(model, torch.randn(2, 64), KernelSearch(2, timer=timer))
    assert [choice.kernel for choice in choices] == ["packed_blocks", "packed"]
    with torch.inference_mode():
        expected = model(torch.ones(1, 64))
        apply_kernels(model, {choice.layer: choice.kernel for choice in choices})
        torch.testing.assert_close(model(torch.ones(1, 64)), expected, rtol=1e-5, atol=1e-4)


def sparse_vit() -> nn.Module:
    model = build_model(small_config().model, 0.0, 0).eval()
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.startswith("blocks."):
                module.weight.mul_(torch.rand_like(module.weight) < 0.1)
    return model


def test_a_kernel_must_be_faster_than_the_dense_layer() -> None:
    model = sparse_vit()
    images = torch.randn(2, 1, 8, 8)
    for seconds, expected in ((0.5, "packed"), (0.98, "dense"), (2.0, "dense")):
        timer = FakeTimer({PackedLinear: seconds, SparseLinear: 1.5, TrimmedLinear: 1.5})
        choices = select_kernels(model, images, KernelSearch(len(images), timer=timer))
        assert {choice.kernel for choice in choices} == {expected}
        assert len(choices) == 8
        assert all(choice.time_over_dense["packed"] == seconds for choice in choices)


def test_replaced_layers_do_not_change_the_logits() -> None:
    model = sparse_vit()
    images = torch.randn(5, 1, 8, 8)
    kernels = {"blocks.0.attn.qkv": "packed", "blocks.0.mlp.fc1": "csr", "blocks.1.mlp.fc2": "packed"}
    fast = apply_kernels(copy.deepcopy(model), {**kernels, "blocks.1.attn.qkv": "dense"})
    assert type(fast.get_submodule("blocks.0.attn.qkv")).__name__ == "PackedLinear"
    assert type(fast.get_submodule("blocks.1.attn.qkv")).__name__ == "Linear"
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), model(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="no kernel 'fast'; valid: dense, trimmed"):
        apply_kernels(model, {"blocks.0.mlp.fc1": "fast"})
    with pytest.raises(UserError, match="is not available here; load with"):
        apply_kernels(model, {"blocks.0.mlp.fc1": "bsr"})


def test_without_numba_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_module, "has_packed", lambda: False)
    assert "packed" not in select_kernels(sparse_vit(), torch.randn(1, 1, 8, 8), KernelSearch(1))[0].time_over_dense
    with pytest.raises(UserError, match="numba is not installed"):
        apply_kernels(sparse_vit(), {"blocks.0.mlp.fc1": "packed"})


def has_packed_layers(model: nn.Module) -> bool:
    return any(isinstance(module, PackedLinear) for module in model.modules())


def trained(name: str, folder: Path, dense: Weights, *overrides: str) -> tuple[Config, Weights]:
    config = small_config(*METHODS[name], *overrides)
    run = trainer(config, folder, dense)
    run.run()
    return config, run.state.model.state_dict()


def test_an_export_stores_the_measurement(tmp_path: Path, dense: Weights) -> None:
    config, weights = trained("svite", tmp_path / "run", dense, "method.sparsity=0.9")
    lines: list[str] = []
    description = export(config, weights, tmp_path / "real", {}, KernelSearch(4, log=lines.append))
    kernels = description["kernels"]
    assert kernels["batch"] == 4
    assert kernels["form"] in kernels["time_over_masked"] or kernels["form"] == "masked"
    assert bool(kernels["layers"]) == (kernels["form"] == "with_kernels")
    assert kernels["time_over_masked"]["again"] <= 1.02
    assert len(lines) >= len(kernels["tried"]) > 0


def test_an_export_is_loaded_with_the_kernels_that_were_fastest(tmp_path: Path, dense: Weights) -> None:
    config, weights = trained("svite", tmp_path / "run", dense, "method.sparsity=0.9")
    search = KernelSearch(4, timer=lambda module, _: 0.5 if has_packed_layers(module) else 1.0)
    kernels = export(config, weights, tmp_path / "out", {}, search)["kernels"]
    assert set(kernels["layers"].values()) == {"packed"}
    assert kernels["time_over_masked"] == {"smaller": 1.0, "with_kernels": 0.5, "again": 0.5}
    assert kernels["largest_logit_difference"] < 1e-4
    packed, plain = load_exported(tmp_path / "out"), load_exported(tmp_path / "out", "dense")
    assert has_packed_layers(packed)
    assert not has_packed_layers(plain)
    images = torch.randn(16, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(packed(images), plain(images), rtol=0, atol=1e-5)


class TimerOfForms:
    """Times of whole models over the masked one: as first measured, and when the winner is measured again."""

    def __init__(self, masked: nn.Module, smaller: tuple[float, float], with_kernels: tuple[float, float]) -> None:
        self.masked, self.times = masked, {False: smaller, True: with_kernels}
        self.calls = {False: 0, True: 0}

    def __call__(self, module: nn.Module, _: torch.Tensor) -> float:
        if any(isinstance(part, ZeroCostLinear) for part in module.modules()):
            return 0.25
        if module is self.masked:
            return 1.0
        if not hasattr(module, "blocks"):  # one layer
            return 0.5 if isinstance(module, PackedLinear) else 1.5 if not isinstance(module, nn.Linear) else 1.0
        form = has_packed_layers(module)
        self.calls[form] += 1
        return self.times[form][self.calls[form] > 1 + PAIRS]


@pytest.mark.parametrize(
    ("smaller", "with_kernels", "form", "rejected"),
    [
        ((1.0, 1.0), (3.0, 3.0), "smaller", 0),
        ((1.0, 1.0), (0.5, 0.5), "with_kernels", 0),
        ((1.0, 1.01), (0.9, 1.5), "smaller", 1),  # the first time of the kernels was luck
        ((1.3, 1.3), (1.1, 1.1), "masked", 2),
        ((1.01, 1.01), (1.5, 1.5), "smaller", 0),
    ],
)
def test_a_chosen_form_is_not_slower_than_the_masked_model(
    smaller: tuple[float, float], with_kernels: tuple[float, float], form: str, rejected: int
) -> None:
    masked = sparse_vit()
    timer = TimerOfForms(masked, smaller, with_kernels)
    lines: list[str] = []
    selected = select_form(
        masked, copy.deepcopy(masked), torch.randn(2, 1, 8, 8), KernelSearch(2, log=lines.append, timer=timer)
    )
    assert selected["form"] == form
    assert bool(selected["layers"]) == (form == "with_kernels")
    assert selected["limit_over_masked"] == 0.25
    again = {"smaller": smaller[1], "with_kernels": with_kernels[1], "masked": 1.0}[form]
    assert selected["time_over_masked"]["again"] == again
    assert sum("not used" in line for line in lines) == rejected
    assert all(calls in (1 + PAIRS, 2 + PAIRS + CONFIRMING_PAIRS) for calls in timer.calls.values())


def test_a_model_that_shrinking_slows_down_is_exported_masked(tmp_path: Path, dense: Weights) -> None:
    config, weights = trained("s2vite", tmp_path / "run", dense)

    def timer(module: nn.Module, _: torch.Tensor) -> float:
        return 1.0 if not hasattr(module, "blocks") or block_sizes(module).heads == (3, 3) else 1.1

    description = export(config, weights, tmp_path / "out", {}, KernelSearch(2, timer=timer))
    assert description["kernels"]["form"] == "masked"
    assert description["parameters"]["stored"] == description["parameters"]["dense"]
    assert description["heads"] == [3, 3]
    images = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(load_exported(tmp_path / "out")(images), masked_model(config, weights)(images))


def test_kernels_that_change_the_logits_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(linear: nn.Linear) -> nn.Module:
        packed = PackedLinear(linear, 1)
        packed.bias += 1
        return packed

    monkeypatch.setitem(KERNELS, "packed", wrong)
    lines: list[str] = []
    timer = FakeTimer({PackedLinear: 0.5})
    selected = select_form(
        sparse_vit(), sparse_vit(), torch.randn(2, 1, 8, 8), KernelSearch(2, log=lines.append, timer=timer)
    )
    assert selected["layers"] == {}
    assert any("kernels change logits" in line for line in lines)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", ["trimmed", "csr", "packed"])
def test_a_1x1_convolution_is_a_linear_layer(stride: int, kernel: str) -> None:
    draw = torch.Generator().manual_seed(1)
    convolution = nn.Conv2d(12, 8, 1, stride=stride, bias=False)
    with torch.no_grad():
        convolution.weight.mul_(torch.rand(8, 12, 1, 1, generator=draw) < 0.3)
        convolution.weight[4:8] = 0
    model = nn.Sequential(convolution)
    images = torch.randn(3, 12, 7, 5, generator=draw)
    with torch.inference_mode():
        expected = convolution(images)
        fast = apply_kernels(copy.deepcopy(model), {"0": kernel})
        assert isinstance(fast[0], Pointwise)
        torch.testing.assert_close(fast(images), expected, rtol=1e-5, atol=1e-5)
    assert as_linear(convolution).weight.data_ptr() == convolution.weight.data_ptr()


def flops(module: nn.Module, inputs: torch.Tensor) -> float:
    """A timer without a clock: what it returns depends on the work alone."""
    with FlopCounterMode(display=False) as counter:
        module(inputs)
    return float(counter.get_total_flops())


def layer_flops(model: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Two operations for each weight and each position of the output; biases are not counted."""
    counts: dict[str, int] = {}

    def count(name: str, layer: nn.Conv2d | nn.Linear, outputs: torch.Tensor) -> None:
        counts[name] = 2 * layer.weight.numel() * outputs.numel() // len(layer.weight)

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, _, outputs, name=name: count(name, layer, outputs))
    with torch.inference_mode():
        model(images)
    return counts


def test_1x1_convolutions_of_a_resnet_are_tried() -> None:
    model = build_model(resnet_config("method=dense").model, 0.0, 0).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(torch.rand_like(module.weight) < 0.1)
    images = torch.randn(2, 1, 8, 8)
    pointwise = {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    }
    assert pointwise == {name for name, _ in sparse_layers(model)}
    selected = select_form(model, model, images, KernelSearch(len(images), timer=flops))
    assert set(selected["tried"]) == pointwise
    of_others = sum(count for name, count in layer_flops(model, images).items() if name not in pointwise)
    assert selected["limit_over_masked"] == pytest.approx(of_others / flops(model, images), abs=1e-4)
    assert selected["limit_over_masked"] < 0.9, "the 1x1 convolutions are a part of the work that counts"

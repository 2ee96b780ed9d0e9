"""Kernels for sparse layers: the same numbers as the dense layer, chosen by measurement, written into an export."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import METHODS, Weights, resnet_config, small_config, trainer
from torch import nn

from repro.errors import UserError
from repro.models import choosing
from repro.models import kernels as kernels_module
from repro.models.backbone import build_model
from repro.models.choosing import choose, measured
from repro.models.export import export, load_exported
from repro.models.kernels import (
    KERNELS,
    Pointwise,
    SparseLinear,
    TrimmedLinear,
    apply_kernels,
    as_linear,
    block_density,
)
from repro.models.packed import PackedLinear


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
def test_packed_weights_say_what_the_dense_ones_say(
    outputs: int, inputs: int, tokens: int, density: float, rows: int, bias: bool
) -> None:
    """Any size: tiles of tokens that are not full, rows left over, layers without any weight."""
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
    """numba begins with as many as there are cores, and shares OpenMP with torch: whatever is timed next had them."""
    code = (
        "import torch; from torch import nn; from repro.models.packed import PackedLinear\n"
        "torch.set_num_threads(2)\n"
        "PackedLinear(nn.Linear(8, 8), 1)(torch.randn(2, 8))\n"
        "print(torch.get_num_threads())"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": "3", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "2"


def test_what_a_packed_layer_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 1, or 4"):
        PackedLinear(nn.Linear(4, 6), 4)
    with pytest.raises(UserError, match="float32 on a CPU"):
        PackedLinear(nn.Linear(4, 4), 1)(torch.zeros(1, 4, dtype=torch.float64))


@pytest.mark.parametrize("block", [None, 16, 32])
def test_torch_sparse_products_say_the_same(block: int | None) -> None:
    linear = sparse_linear(64, 96, 0.2, block or 1)
    agree(SparseLinear(linear, block), linear, 3, 17)


def test_trimmed_layers_lose_rows_and_columns_and_keep_their_biases() -> None:
    linear = sparse_linear(8, 6, 1.0)
    with torch.no_grad():
        linear.weight[[1, 5]] = 0
        linear.weight[:, 2] = 0
    trimmed = TrimmedLinear(linear)
    assert trimmed.weight.shape == (6, 5)
    agree(trimmed, linear, 2, 3)
    assert trimmed(torch.randn(1, 6))[0, 1] == linear.bias[1]


def test_which_kernels_a_layer_has() -> None:
    """Blocks where zeros come in blocks, trimming where rows or columns are empty."""
    scattered, blocks = sparse_linear(64, 64, 0.5), sparse_linear(64, 64, 0.5, 32, seed=2)
    assert {name for name, build in KERNELS.items() if build(scattered)} == {"csr", "packed"}
    assert (
        block_density(blocks.weight, 32) == block_density(blocks.weight, 16) < 1 == block_density(scattered.weight, 16)
    )
    assert {name for name, build in KERNELS.items() if build(blocks)} >= {"csr", "bsr", "packed", "packed_blocks"}


@pytest.mark.parametrize(("outputs", "inputs"), [(10, 96), (1000, 384), (16, 10), (48, 96)])
@pytest.mark.parametrize("density", [0.7, 0.74])
def test_blocks_that_do_not_fit_are_not_tried(outputs: int, inputs: int, density: float) -> None:
    """Ten classes or a thousand: no multiple of 16. At two thirds and above full blocks look as good as the weights."""
    linear = sparse_linear(outputs, inputs, density)
    built = {name: build(linear) for name, build in KERNELS.items()}
    assert ("bsr" in {name for name, module in built.items() if module is not None}) is (outputs == 48)
    for module in built.values():
        if module is not None:
            agree(module, linear, 3)


def test_a_layer_takes_no_kernel_that_it_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Densities that round to the same digit, on either side of what groups of four rows need."""
    model = nn.Sequential(sparse_linear(64, 64, 0.72), sparse_linear(64, 64, 0.655))
    assert kernels_module.has_kernel(model[0], "packed_blocks")
    assert not kernels_module.has_kernel(model[1], "packed_blocks")
    ratios = {"packed_blocks": 0.3, "packed": 0.5, "csr": 0.9}
    monkeypatch.setattr(choosing, "_ratios", lambda *_: ratios.items())
    choices = choose(model, torch.randn(2, 64))
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


def test_a_kernel_is_taken_only_where_it_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sparse_vit()
    images = torch.randn(2, 1, 8, 8)
    for seconds, expected in ((0.5, "packed"), (0.98, "dense"), (2.0, "dense")):
        took = {"PackedLinear": seconds, "SparseLinear": 1.5, "TrimmedLinear": 1.5, "Linear": 1.0}
        monkeypatch.setattr(choosing, "_seconds", lambda module, _, took=took: took[type(module).__name__])
        choices = choose(model, images)
        assert {choice.kernel for choice in choices} == {expected}
        assert len(choices) == 8
        assert all(choice.time_over_dense["packed"] == seconds for choice in choices)


def test_layers_are_replaced_and_the_model_says_the_same() -> None:
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
    with pytest.raises(UserError, match="cannot be had here; load it with"):
        apply_kernels(model, {"blocks.0.mlp.fc1": "bsr"})


def test_without_numba_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_module, "has_packed", lambda: False)
    assert "packed" not in choose(sparse_vit(), torch.randn(1, 1, 8, 8))[0].time_over_dense
    with pytest.raises(UserError, match="numba is not installed"):
        apply_kernels(sparse_vit(), {"blocks.0.mlp.fc1": "packed"})


def test_an_export_measures_and_remembers(tmp_path: Path, dense: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(*METHODS["svite"], "method.sparsity=0.9")
    run = trainer(config, tmp_path / "run", dense)
    run.run()
    weights = run.state.model.state_dict()
    images = torch.randn(16, 1, 8, 8)
    told: list[str] = []
    description = export(config, weights, tmp_path / "real", {}, batch=4, tell=told.append)
    found = description["kernels"]
    assert found["batch"] == 4
    assert found["form"] in found["time_over_masked"] or found["form"] == "masked"
    assert bool(found["layers"]) == (found["form"] == "with_kernels")
    assert found["time_over_masked"]["again"] <= 1.02
    assert len(told) >= len(found["tried"]) > 0

    def fastest(module: nn.Module, _: torch.Tensor) -> float:
        return 0.5 if any(isinstance(part, PackedLinear) for part in module.modules()) else 1.0

    monkeypatch.setattr(choosing, "_seconds", fastest)
    description = export(config, weights, tmp_path / "packed", {}, batch=4)
    assert set(description["kernels"]["layers"].values()) == {"packed"}
    times = description["kernels"]["time_over_masked"]
    assert times == {"smaller": 1.0, "with_kernels": 0.5, "again": 0.5}
    assert description["kernels"]["largest_logit_difference"] < 1e-4
    packed, plain = load_exported(tmp_path / "packed"), load_exported(tmp_path / "packed", "dense")
    assert any(isinstance(part, PackedLinear) for part in packed.modules())
    assert not any(isinstance(part, PackedLinear) for part in plain.modules())
    with torch.inference_mode():
        torch.testing.assert_close(packed(images), plain(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("times", "form"),
    [
        # of the smaller model and of the one with kernels, as first timed and timed again
        ((1.0, 1.0, 3.0, 3.0), "smaller"),
        ((1.0, 1.0, 0.5, 0.5), "with_kernels"),
        ((1.0, 1.01, 0.9, 1.5), "smaller"),  # its first time was luck
        ((1.3, 1.3, 1.1, 1.1), "masked"),
        ((1.01, 1.01, 1.5, 1.5), "smaller"),
    ],
)
def test_a_finished_model_is_never_slower_than_the_masked_one(
    times: tuple[float, float, float, float], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = sparse_vit()
    small = copy.deepcopy(masked)

    def ratio(model: nn.Module, _: nn.Module, __: torch.Tensor, pairs: int) -> float:
        if any(isinstance(part, choosing.Nothing) for part in model.modules()):
            return 0.25
        has_kernels = any(isinstance(part, PackedLinear) for part in model.modules())
        return times[2 * has_kernels + (pairs == choosing.PAIRS_AGAIN)]

    took = {"PackedLinear": 0.5, "SparseLinear": 1.5, "TrimmedLinear": 1.5, "Linear": 1.0}
    monkeypatch.setattr(choosing, "_whole_ratio", ratio)
    monkeypatch.setattr(choosing, "_seconds", lambda module, _: took[type(module).__name__])
    told: list[str] = []
    found = measured(masked, small, torch.randn(2, 1, 8, 8), told.append)
    assert found["form"] == form
    assert bool(found["layers"]) == (form == "with_kernels")
    assert found["limit_over_masked"] == 0.25
    assert found["time_over_masked"]["again"] == {"smaller": times[1], "with_kernels": times[3], "masked": 1.0}[form]
    assert sum("not taken" in line for line in told) == {"masked": 2, "smaller": int(times[2] < times[0])}.get(form, 0)


def test_a_model_that_being_smaller_slows_is_written_whole(
    tmp_path: Path, dense: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(*METHODS["s2vite"])
    run = trainer(config, tmp_path / "run", dense)
    run.run()
    monkeypatch.setattr(choosing, "_whole_ratio", lambda *_: 1.1)
    description = export(config, run.state.model.state_dict(), tmp_path / "out", {}, batch=2)
    assert description["kernels"]["form"] == "masked"
    assert description["parameters"]["stored"] == description["parameters"]["dense"]
    assert description["heads"] == [3, 3]
    images = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(load_exported(tmp_path / "out")(images), run.state.model.eval()(images))


def test_kernels_whose_logits_are_off_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "KERNEL_TOLERANCE", -1.0)
    monkeypatch.setattr(choosing, "_seconds", lambda module, _: 0.5 if isinstance(module, PackedLinear) else 1.0)
    told: list[str] = []
    found = measured(sparse_vit(), sparse_vit(), torch.randn(2, 1, 8, 8), told.append)
    assert found["layers"] == {}
    assert any("logits are off" in line for line in told)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", ["trimmed", "csr", "packed"])
def test_a_convolution_of_one_pixel_is_a_linear_layer(stride: int, kernel: str) -> None:
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


def test_a_resnets_layers_of_one_pixel_are_tried() -> None:
    model = build_model(resnet_config("method=dense").model, 0.0, 0).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(torch.rand_like(module.weight) < 0.1)
    images = torch.randn(2, 1, 8, 8)
    pointwise = {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    }
    assert pointwise == {name for name, _ in choosing.sparse_layers(model)}
    found = measured(model, model, images)
    assert set(found["tried"]) == pointwise
    assert found["limit_over_masked"] < 1.5

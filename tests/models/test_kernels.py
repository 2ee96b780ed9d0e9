"""Kernels for sparse layers: the same numbers as the dense layer, chosen by measurement, written into an export."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import METHODS, Weights, small_config, trainer
from torch import nn

from repro.errors import UserError
from repro.models import kernels as choosing
from repro.models.backbone import build_model
from repro.models.export import export, load_exported
from repro.models.kernels import KERNELS, SparseLinear, TrimmedLinear, apply_kernels, block_density, choose
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
    monkeypatch.setattr(choosing, "has_packed", lambda: False)
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
    assert found["time_over_masked"]["kernels"] <= found["time_over_masked"]["dense"]
    assert len(told) >= len(found["tried"]) > 0

    def fastest(module: nn.Module, _: torch.Tensor) -> float:
        return 0.5 if any(isinstance(part, PackedLinear) for part in module.modules()) else 1.0

    monkeypatch.setattr(choosing, "_seconds", fastest)
    description = export(config, weights, tmp_path / "packed", {}, batch=4)
    assert set(description["kernels"]["layers"].values()) == {"packed"}
    assert description["kernels"]["time_over_masked"] == {"dense": 1.0, "kernels": 0.5}
    packed, plain = load_exported(tmp_path / "packed"), load_exported(tmp_path / "packed", "dense")
    assert any(isinstance(part, PackedLinear) for part in packed.modules())
    assert not any(isinstance(part, PackedLinear) for part in plain.modules())
    with torch.inference_mode():
        torch.testing.assert_close(packed(images), plain(images), rtol=0, atol=1e-5)


def test_kernels_that_slow_the_whole_model_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sparse_vit()

    def seconds(module: nn.Module, _: torch.Tensor) -> float:
        if isinstance(module, PackedLinear):
            return 0.5
        return 3.0 if any(isinstance(part, PackedLinear) for part in module.modules()) else 1.0

    monkeypatch.setattr(choosing, "_seconds", seconds)
    told: list[str] = []
    found = choosing.measured_kernels(model, model, torch.randn(2, 1, 8, 8), told.append)
    assert found["layers"] == {}
    assert "all layers stay dense" in told[-1]
    assert np.isclose(found["time_over_masked"]["kernels"], 1)

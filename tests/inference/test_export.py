"""Export: the shrunk, written and loaded model has the logits of the masked one, for every method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import METHODS, VIT, Weights, resnet_config, same, small_config, trainer
from torch import nn

from repro.config.compose import compose
from repro.errors import UserError
from repro.evaluation.extract import inspect_model
from repro.inference.build import masked_model
from repro.inference.export import export, load_exported
from repro.inference.shrink import Sizes, align, block_sizes, resize, shrink
from repro.interruption import Interrupted
from repro.methods.tokens.linformer import LinformerAttention
from repro.models.backbone import build_model
from repro.tables.loader import load_table

STRUCTURED = ("s2vite", "s2vite as released", "s2vite_plus", "ssp")


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)  # the selection `as_released` samples in evaluation
    with torch.inference_mode():
        out: torch.Tensor = model(images)
    return out


@pytest.mark.parametrize("name", METHODS)
def test_the_exported_model_has_the_logits_of_the_masked_one(name: str, tmp_path: Path, dense: Weights) -> None:
    config = small_config(*METHODS[name])
    run = trainer(config, tmp_path / "run", dense)
    run.run()
    weights = run.state.model.state_dict()
    masked = masked_model(config, weights)
    description = export(config, weights, tmp_path / "out", {"row": name})
    exported = load_exported(tmp_path / "out")
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    trained = logits(run.state.model.eval(), images)
    torch.testing.assert_close(logits(masked, images), trained, rtol=0, atol=0)
    torch.testing.assert_close(logits(exported, images), trained, rtol=0, atol=1e-5)
    full, small = (sum(weight.numel() for weight in model.parameters()) for model in (masked, exported))
    assert description["parameters"]["stored"] == small
    assert json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8")) == description
    if name in STRUCTURED:
        assert block_sizes(exported) == Sizes((2, 2), (33, 33))
        dim = 12
        # Of each block: one head (qkv rows with biases, columns of proj) and 15 neurons (row, bias, column) leave.
        assert full - small == 2 * (4 * (3 * dim + 3) + dim * 4 + 15 * (2 * dim + 1))
    elif name == "dense":
        assert small == full
    nonzero = sum(int(weight.count_nonzero()) for weight in masked.parameters())
    assert description["parameters"]["nonzero"] <= nonzero


@pytest.mark.parametrize("backbone", ["deit_tiny", "deit_small", "deit_base"])
def test_every_row_of_table_1_exports_to_the_same_logits(backbone: str, tmp_path: Path, dense: Weights) -> None:
    """Each row's method, sparsity and tokens, after an update, with enlarged weights."""
    for row in load_table("table1").select([f"{backbone}/*"]):
        config = small_config(*row.overrides, "recipe.drop_path=0", "model.embed_dim=12", "model.num_heads=3")
        run = trainer(config, tmp_path / "run" / row.id.replace("/", "-"), dense, stop_at=1)
        with pytest.raises(Interrupted):
            run.run()
        weights = run.state.model.state_dict()
        for value in weights.values():
            value.mul_(4)
        description = export(config, weights, tmp_path / "out", {"row": row.id})
        images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        masked = logits(masked_model(config, weights), images)
        assert float(masked.abs().max()) > 1e-2, "the logits depend on the image"
        torch.testing.assert_close(logits(load_exported(tmp_path / "out"), images), masked, rtol=0, atol=1e-5)
        assert description["largest_logit_difference"] <= 1e-5


def test_an_export_with_other_logits_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repro.inference import export as exporting

    def broken(model: nn.Module) -> Sizes:
        with torch.no_grad():
            model.head.bias.add_(1e-3)  # type: ignore[union-attr]
        return block_sizes(model)

    monkeypatch.setattr(exporting, "shrink", broken)
    with pytest.raises(ArithmeticError, match=r"differ from the masked model's by 0\.001"):
        export(small_config(), full_model().state_dict(), tmp_path, {})
    assert not list(tmp_path.iterdir())


def full_model() -> nn.Module:
    return build_model(small_config().model, 0.0, 1)


def test_heads_and_neurons_without_effect_are_removed() -> None:
    """Constants of removed ones, which biases that no mask covers leave, go into the bias of the layer behind them."""
    model = full_model().eval()
    block = model.blocks[1]  # type: ignore[index]
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.rand_like(weight) * 0.2)  # biases too
        block.mlp.fc2.weight[:, 3] = 0  # active, but nothing reads it  # type: ignore[union-attr]
        block.mlp.fc1.weight[5] = 0  # puts out gelu(bias)  # type: ignore[union-attr]
        block.attn.qkv.weight[24:28] = 0  # values of head 0: it puts out their bias  # type: ignore[union-attr]
        proj, value = block.attn.proj, block.attn.qkv.bias[24:28]  # type: ignore[union-attr]
        expected = proj.bias + proj.weight[:, :4] @ value
    images = torch.randn(4, 1, 8, 8)
    before = logits(model, images)
    assert shrink(model) == Sizes((3, 2), (48, 46))
    torch.testing.assert_close(logits(model, images), before, rtol=0, atol=1e-5)
    torch.testing.assert_close(block.attn.proj.bias, expected)  # type: ignore[union-attr]


def test_constants_before_a_norm_or_a_mixture_of_tokens_stay() -> None:
    """They are no constants behind it."""
    model = build_model(small_config().model, 0.0, 1).eval()
    (block, mixing) = model.blocks  # type: ignore[misc]
    mixing.attn = LinformerAttention(mixing.attn, tokens=17, rank=4)
    block.mlp.norm = nn.LayerNorm(48)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.rand_like(weight) * 0.2)
        block.mlp.fc1.weight[5] = 0
        mixing.attn.qkv.weight[24:28] = 0
    images = torch.randn(4, 1, 8, 8)
    before = logits(model, images)
    assert shrink(model) == Sizes((3, 3), (48, 48))
    torch.testing.assert_close(logits(model, images), before, rtol=0, atol=0)


def test_a_block_without_effect_keeps_one_of_each() -> None:
    model = full_model().eval()
    with torch.no_grad():
        for weight in model.blocks[0].parameters():  # type: ignore[index]
            weight.zero_()
    images = torch.randn(4, 1, 8, 8)
    before = logits(model, images)
    assert shrink(model) == Sizes((1, 3), (1, 48))
    torch.testing.assert_close(logits(model, images), before, rtol=0, atol=1e-5)


@given(neurons=st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_padding_neurons_have_no_effect(neurons: int) -> None:
    model = build_model(compose([*VIT, "scale=smoke", "model.mlp_ratio=20"]).model, 0.0, 1).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.rand_like(weight) * 0.1)  # biases too
    resize(model, Sizes((3, 3), (neurons, 37)))
    images = torch.randn(3, 1, 8, 8)
    before = logits(model, images)
    assert align(model) is model
    wide = -(-neurons // 16) * 16
    assert block_sizes(model) == Sizes((3, 3), (wide if wide <= 1.02 * neurons else neurons, 37))
    torch.testing.assert_close(logits(model, images), before, rtol=0, atol=1e-5)


def test_odd_widths_are_padded_by_two_percent_at_most() -> None:
    """0.6 of DeiT-Small's 1536 neurons are 921; 0.7 of DeiT-Tiny's 768 are 537; a small model's 67 stay."""
    for neurons, wide in ((921, 928), (537, 544), (67, 67), (1536, 1536)):
        model = build_model(compose([*VIT, "scale=smoke", "model.mlp_ratio=128"]).model, 0.0, 1)
        resize(model, Sizes((3, 3), (neurons, neurons)))
        assert block_sizes(align(model)).neurons == (wide, wide)


def test_a_folder_without_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no exported model"):
        load_exported(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 9}', encoding="utf-8")
    with pytest.raises(UserError, match="format 9, this code reads 4"):
        load_exported(tmp_path)


def test_a_model_without_heads_and_neurons_is_unchanged(tmp_path: Path) -> None:
    config = resnet_config("method=dense")
    model = build_model(config.model, 0.0, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert shrink(model) == Sizes((), ())
    assert same(before, dict(model.state_dict()))
    description = export(config, before, tmp_path, {"row": "resnet"})
    assert (description["heads"], description["neurons"]) == ([], [])
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(logits(load_exported(tmp_path), images), logits(model.eval(), images))
    assert inspect_model(config, before, images)["heads"] == []

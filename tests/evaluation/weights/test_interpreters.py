"""IA-RED2's released checkpoints give the outputs of its formulas, computed here from the file's own names."""

from __future__ import annotations

from pathlib import Path

import pytest
import released_files
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from repro.config import Config
from repro.config.compose import compose
from repro.errors import UserError
from repro.evaluation.sources import from_file
from repro.evaluation.weights.interpreters import split_groups
from repro.models.token_dropping import tracing
from repro.tables.loader import find_row


@pytest.fixture(scope="module")
def config() -> Config:
    return compose([*find_row("table3/deit_small/ia_red2")[1].overrides_at("local")])


def interpreted(weights: released_files.Weights, tokens: Tensor, heads: int) -> tuple[Tensor, list[Tensor]]:
    """Return the class token's features and the patches kept after each stage, from tokens (images, n, width)."""
    kept, stages, width = torch.ones(tokens.shape[:2], dtype=torch.bool), [], tokens.shape[2]
    for group in range(3):
        name = f"groups.{group}.agent.qk"
        normed = layer_norm(tokens * kept[..., None], (width,))
        query, key, _ = linear(normed, weights[f"{name}.weight"], weights[f"{name}.bias"]).chunk(3, -1)
        query, key = (each.unflatten(-1, (heads, -1)) for each in (query, key))
        logits = torch.einsum("ihd,inhd->inh", query[:, 0], key) * (width // heads) ** -0.5
        kept = kept & (logits.sigmoid().mean(-1) > 0.5)
        kept[:, 0] = True
        stages.append(kept[:, 1:])
        for index in range(len({name.split(".")[3] for name in weights if name.startswith(f"groups.{group}.block")})):
            tokens = block(weights, f"groups.{group}.block_list.{index}", tokens, kept, heads)
    return tokens[:, 0], stages


def block(weights: released_files.Weights, name: str, tokens: Tensor, kept: Tensor, heads: int) -> Tensor:
    def layer(kind: str, values: Tensor) -> Tensor:
        return linear(values, weights[f"{name}.{kind}.weight"], weights[f"{name}.{kind}.bias"])

    def norm(kind: str) -> Tensor:
        own = weights[f"{name}.{kind}.weight"], weights[f"{name}.{kind}.bias"]
        return layer_norm(tokens, (tokens.shape[2],), *own, eps=1e-6)

    query, key, value = (
        each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in layer("attn.qkv", norm("norm1")).chunk(3, -1)
    )
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    attention = scores.masked_fill(~kept[:, None, None], float("-inf")).softmax(-1) @ value
    tokens = tokens + layer("attn.proj", attention.transpose(1, 2).flatten(2))
    return tokens + layer("mlp.fc2", gelu(layer("mlp.fc1", norm("norm2"))))


def test_patches_and_logits_are_those_of_the_released_formulas(config: Config, tmp_path: Path) -> None:
    weights = released_files.ia_red2(tmp_path / "model.pth", config)
    model = from_file(tmp_path / "model.pth", config).model.eval()
    images = torch.randn(16, *config.model.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), tracing(model) as traces:
        logits = model(images)
        tokens = model._pos_embed(model.patch_embed(images))  # type: ignore[operator]
        features, stages = interpreted(weights, tokens, config.model.attention_heads)
        normed = layer_norm(features, features.shape[1:], weights["norm.weight"], weights["norm.bias"], eps=1e-6)
        expected = linear(normed, weights["head.weight"], weights["head.bias"])
    shares = [float(stage.float().mean()) for stage in stages]
    assert 1 > shares[0] > shares[1] > shares[2] > 0, "each stage drops some"
    for trace, stage in zip(traces, stages, strict=True):
        assert torch.equal(trace.kept, stage)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_blocks_that_are_only_in_groups_are_counted_over_uneven_groups() -> None:
    one = torch.ones(1)
    names = ["groups.0.block_list.0.a", "groups.0.block_list.1.a", "groups.1.block_list.0.a", "head.bias"]
    found = split_groups({f"module.{name}": one for name in names}, "file")
    assert sorted(found) == ["module.blocks.0.a", "module.blocks.1.a", "module.blocks.2.a", "module.head.bias"]


def test_an_interpreter_is_split_into_query_and_key() -> None:
    weight, bias = torch.arange(12.0).view(6, 2), torch.arange(6.0)
    found = split_groups({"groups.1.agent.qk.weight": weight, "groups.1.agent.qk.bias": bias}, "file")
    assert {name.removeprefix("droppers.1."): value.tolist() for name, value in found.items()} == {
        "query.weight": [[0, 1], [2, 3]],
        "key.weight": [[4, 5], [6, 7]],
        "norm.weight": [1, 1],
        "query.bias": [0, 1],
        "key.bias": [2, 3],
        "norm.bias": [0, 0],
    }


def test_a_block_that_differs_in_its_group_is_an_error() -> None:
    weights = {"blocks.0.a": torch.zeros(1), "groups.0.block_list.0.a": torch.ones(1)}
    with pytest.raises(UserError, match=r"^file: groups\.0\.block_list\.0\.a and blocks\.0\.a differ"):
        split_groups(weights, "file")

"""Layers, parameters and MACs of each family, counted from its shape, against the real model's forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from torch import nn

from repro.config.compose import compose
from repro.config.costs import row_cost
from repro.counting.geometry import Geometry, ResNet, parse_geometry
from repro.errors import UserError
from repro.models.backbone import build_model

BACKBONES = ("deit_tiny", "deit_small", "deit_base", "resnet50", "vit_base")
TINY_RESNET = {
    "architecture": "resnet",
    "blocks": [2, 1, 1, 1],
    "channels": [16, 8, 8, 8],
    "stem": "imagenet",
    "image_size": 37,
    "in_chans": 2,
    "num_classes": 3,
}


def forward_counts(model: nn.Module, geometry: Geometry) -> tuple[dict[str, tuple[tuple[int, ...], int]], int]:
    """By prunable layer its shape and the uses of each entry in one image's forward pass; and the parameters in all."""
    seen: dict[str, tuple[tuple[int, ...], int]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            weight: torch.Tensor = module.weight  # type: ignore[assignment]
            seen[name] = (tuple(weight.shape), output.numel() // weight.shape[0])

        module.register_forward_hook(note)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            watch(name, module)
    with torch.inference_mode():
        model.eval()(torch.zeros(1, geometry.in_chans, geometry.image_size, geometry.image_size))
    return seen, sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("size", ["paper", "local"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_layers_uses_and_parameters_are_those_of_a_real_forward_pass(backbone: str, size: str) -> None:
    geometry: Geometry = getattr(compose([f"backbone={backbone}"]).backbone, size)
    model = build_model(geometry, 0.0, 0)
    seen, parameters = forward_counts(model, geometry)
    layers = geometry.layers(geometry.tokens)
    assert {layer.name: (layer.shape, layer.uses) for layer in layers} == seen
    order = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert [layer.name for layer in layers] == order, "in the order in which masks are drawn"
    assert sum(layer.size for layer in layers) + geometry.vector_params == parameters


@pytest.mark.parametrize("changes", [{}, {"stem": "small"}, {"image_size": 64}, {"channels": [8, 16, 24, 32]}])
def test_any_resnet_is_counted_as_it_runs(changes: dict[str, Any]) -> None:
    """Odd sides, stages of several blocks, a first stage that needs no projection (16 x 4 = 64) and one that does."""
    geometry = parse_geometry({**TINY_RESNET, **changes})
    seen, parameters = forward_counts(build_model(geometry, 0.0, 0), geometry)
    layers = geometry.layers(0)
    assert {layer.name: (layer.shape, layer.uses) for layer in layers} == seen
    assert sum(layer.size for layer in layers) + geometry.vector_params == parameters


@pytest.mark.parametrize(
    ("backbone", "parameters", "macs"),
    [("resnet50", 25_557_032, 4_089_184_256), ("vit_base", 86_567_656, 17_563_828_224)],
)
def test_dense_costs_of_table_2(backbone: str, parameters: int, macs: int) -> None:
    config = compose([f"backbone={backbone}", "method=dense"])
    cost = row_cost(config)
    assert cost.params_m == parameters / 1e6
    assert cost.macs_g == macs / 1e9
    model = timm.create_model(config.backbone.timm_name)
    assert sum(weight.numel() for weight in model.parameters()) == parameters


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_paper_model_is_timms_own(backbone: str) -> None:
    config = compose([f"backbone={backbone}"])
    ours = build_model(config.backbone.paper, 0.0, 0).state_dict()
    theirs = timm.create_model(config.backbone.timm_name).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


def test_timms_resnet_gives_the_same_logits() -> None:
    geometry = compose(["backbone=resnet50"]).backbone.paper
    ours, theirs = build_model(geometry, 0.0, 0).eval(), timm.create_model("resnet50").eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("backbone", ["deit_tiny", "resnet50"])
def test_weights_are_drawn_from_the_seed_alone(backbone: str) -> None:
    geometry = compose([f"backbone={backbone}"]).backbone.local
    before = torch.get_rng_state()
    first, again, other = (build_model(geometry, 0.1, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_erk_and_uniform_budgets_hold_for_a_resnet() -> None:
    costs = {}
    for distribution in ("erk", "uniform", "global"):
        sparse = ["method=gmp", "method.sparsity=0.9", f"method.weights.distribution={distribution}"]
        config = compose(["backbone=resnet50", *sparse])
        geometry = config.backbone.paper
        prunable = sum(layer.size for layer in geometry.layers(0))
        costs[distribution] = cost = row_cost(config)
        assert cost.params_m * 1e6 == pytest.approx(0.1 * prunable + geometry.vector_params, rel=1e-9)
        assert cost.is_exact == (distribution != "global")
    # Uniform: MACs fall as parameters do. ERK keeps the small early layers, which are used most often.
    assert costs["uniform"].flops_saving_pct == pytest.approx(90)
    assert 70 < costs["erk"].flops_saving_pct < 85


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=s2vite"], "method=s2vite: removes heads and neurons, backbone=resnet50 has none"),
        (["method=svite_plus"], "method=svite_plus: selects tokens, but backbone=resnet50 has none"),
        (["model.stem=large"], "model.stem='large': input should be 'imagenet' or 'small'"),
        (["model.embed_dim=24"], "model.embed_dim: no such key"),
        (["backbone.local.image_size=0"], "model.image_size=0: input should be greater than 0"),
    ],
)
def test_what_a_resnet_has_not_is_said(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(["backbone=resnet50", *overrides])


def test_a_geometry_comes_back_from_plain_values() -> None:
    for backbone in BACKBONES:
        geometry = compose([f"backbone={backbone}"]).backbone.paper
        assert parse_geometry(geometry.model_dump(mode="json")) == geometry
    with pytest.raises(ValidationError):
        parse_geometry({"image_size": 8})
    assert isinstance(parse_geometry(TINY_RESNET), ResNet)

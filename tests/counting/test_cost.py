"""Params and MACs against the reference figures of the SViTE study, within 0.02 points."""

from __future__ import annotations

import pytest
import timm
from torch import nn

from repro.config.compose import compose
from repro.config.costs import method_changes, row_cost
from repro.counting.layers import units_kept
from repro.tables.loader import load_table
from repro.tables.rows import row_id

EVERY = {row.id: row for rows in (load_table("table1").rows, load_table("table1").row_sets["grid"]) for row in rows}


@pytest.mark.parametrize(
    ("backbone", "gmacs", "attention_share_pct"),
    [("deit_tiny", 1.2537, 14.3), ("deit_small", 4.5989, 7.8), ("deit_base", 17.5638, 4.1)],
)
def test_dense_macs(backbone: str, gmacs: float, attention_share_pct: float) -> None:
    config = compose([f"backbone={backbone}"])
    assert row_cost(config).macs_g == pytest.approx(gmacs, abs=5e-5)
    model = config.backbone.paper
    attention = model.attention_macs(model.tokens) / 1e9
    assert 100 * attention / gmacs == pytest.approx(attention_share_pct, abs=0.05)


@pytest.mark.parametrize("backbone", ["deit_tiny", "deit_small", "deit_base"])
def test_layers_and_params_are_those_of_timms_model(backbone: str) -> None:
    config = compose([f"backbone={backbone}"])
    model = timm.create_model(config.backbone.timm_name)
    weights = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    assert {layer.name: layer.shape for layer in config.backbone.paper.layers(197)} == weights
    assert row_cost(config).params_m * 1e6 == pytest.approx(sum(p.numel() for p in model.parameters()), abs=0.5)


@pytest.mark.parametrize(
    ("row", "saving_pct"),
    [
        *zip([f"deit_tiny/svite-{s}" for s in (30, 40)], (25.56, 34.14), strict=True),
        *zip([f"deit_small/svite-{s}" for s in range(30, 80, 10)], (27.73, 36.93, 46.15, 55.36, 64.58), strict=True),
        *zip([f"deit_base/svite-{s}" for s in range(30, 80, 10)], (28.98, 38.54, 48.10, 57.67, 67.23), strict=True),
        ("deit_small/svite_plus-5-50", 49.24),
        ("deit_tiny/s2vite-30", 23.68),
        ("deit_small/s2vite-40", 31.86),
        ("deit_base/s2vite-40", 33.35),
    ],
)
def test_flops_saving(row: str, saving_pct: float) -> None:
    assert row_cost(compose(EVERY[row].overrides)).flops_saving_pct == pytest.approx(saving_pct, abs=0.02)


@pytest.mark.parametrize(
    ("row", "saving_pct"),
    [("deit_tiny/s2vite-30", 28.43), ("deit_small/s2vite-40", 34.45), ("deit_base/s2vite-40", 34.70)],
)
def test_flops_saving_by_the_figure_convention(row: str, saving_pct: float) -> None:
    assert row_cost(compose(EVERY[row].overrides)).flops_saving_alt_pct == pytest.approx(saving_pct, abs=0.02)


@pytest.mark.parametrize(
    ("row", "params_m"),
    [
        ("deit_tiny/svite-30", 4.02),
        ("deit_small/svite-40", 13.29),
        ("deit_small/svite-50", 11.09),
        ("deit_base/svite-40", 52.05),
        ("deit_base/svite-50", 43.42),
        ("deit_small/s2vite-40", 14.61),
    ],
)
def test_params(row: str, params_m: float) -> None:
    assert row_cost(compose(EVERY[row].overrides)).params_m == pytest.approx(params_m, abs=0.02)


def test_cost_does_not_depend_on_the_scale() -> None:
    for row in ("deit_small/s2vite-40", "deit_small/svite_plus-10-50"):
        costs = {
            row_cost(compose([*EVERY[row].overrides, f"scale={scale}", "data.root=somewhere"]))
            for scale in ("smoke", "local", "paper")
        }
        assert len(costs) == 1


@pytest.mark.parametrize(("data_sparsity", "kept"), [(0.05, 187), (0.1, 177), (0.3, 138), (0.5, 99)])
def test_tokens_kept(data_sparsity: float, kept: int) -> None:
    config = compose(["method=svite_plus", f"method.data_sparsity={data_sparsity}"])
    assert method_changes(config.backbone.paper, config.method).tokens == kept
    # 17 tokens at local scale keep the same fraction.
    assert method_changes(config.model, config.method).tokens == round(17 * kept / 197)


@pytest.mark.parametrize(
    ("total", "density", "kept"), [(6, 0.7, 4), (12, 0.7, 8), (3, 0.7, 2), (12, 0.4, 4), (6, 0.4, 2), (1536, 0.6, 921)]
)
def test_units_kept_rounds_down_as_the_released_code(total: int, density: float, kept: int) -> None:
    assert units_kept(total, density) == kept


def test_global_pruning_is_said_not_to_be_exact() -> None:
    assert not row_cost(compose(EVERY["deit_base/omp-50"].overrides)).is_exact
    assert row_cost(compose(EVERY["deit_base/svite-50"].overrides)).is_exact


def test_row_names() -> None:
    assert row_id("deit_small", "dense", 0, 0) == "deit_small/dense"
    assert row_id("deit_small", "svite", 50, 0) == "deit_small/svite-50"
    assert row_id("deit_small", "svite_plus", 50, 5) == "deit_small/svite_plus-5-50"


def test_macs_of_global_pruning_are_counted_from_what_runs_at_the_published_size_have_left() -> None:
    paper = compose(["backbone=deit_tiny", "method=gmp", "method.sparsity=0.5", "scale=paper", "data.root=unused"])
    layers = paper.model.layers(paper.model.tokens)
    # Two runs: all of the head and the embedding gone or kept, the blocks at a half.
    ends = {"head", "patch_embed.proj"}
    results = [
        {f"density/{layer.name}": share if layer.name in ends else 0.5 for layer in layers} for share in (0.0, 1.0)
    ]
    uniform, empty, full = row_cost(paper), row_cost(paper, results[:1]), row_cost(paper, results[1:])
    assert (uniform.is_exact, empty.is_exact, full.is_exact) == (False, True, True)
    outer = sum(layer.size * layer.uses for layer in layers if layer.name in ends) / 1e9
    assert full.macs_g - empty.macs_g == pytest.approx(outer)
    assert row_cost(paper, results).macs_g == pytest.approx(uniform.macs_g)
    # At another size the layers are not the published ones, and a result without them tells nothing.
    local = compose(["backbone=deit_tiny", "method=gmp", "method.sparsity=0.5"])
    assert not row_cost(local, results).is_exact
    assert not row_cost(paper, [*results, {"updates": 3}]).is_exact


def test_what_a_target_of_macs_leaves_open_is_the_parameters() -> None:
    words = ["backbone=vit_base", "method=spartan", "scale=paper", "data.root=unused"]
    by_params, by_macs = row_cost(compose(words)), row_cost(compose([*words, "method.weights.cost=macs"]))
    assert (by_params.is_exact, by_params.are_params_exact) == (False, True)
    assert (by_macs.is_exact, by_macs.are_params_exact) == (True, False)
    assert by_macs.flops_saving_pct == pytest.approx(90)

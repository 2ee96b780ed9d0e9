"""What masked layers may keep so that the whole model meets its target."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.config.compose import compose
from repro.counting.budgets import budget, masked_layers
from repro.counting.layers import DenseModel, Layer
from repro.errors import UserError

# 100 weights in a first layer used 9 times, 200 in the middle used 4 times, 50 at the end used once; 10 vectors.
MODEL = DenseModel(
    (Layer("first", (10, 10), 9), Layer("middle", (10, 20), 4), Layer("second", (5, 20), 2), Layer("last", (5, 10), 1)),
    10,
    40,
)


def test_by_hand() -> None:
    # 460 parameters in all: half are 230, less 10 that are never sparse, over 450 weights.
    found = budget(MODEL, 0.5, distribution="global", cost="params", block="entry")
    assert found.is_global
    assert found.densities == dict.fromkeys(("first", "middle", "second", "last"), 220 / 450)
    assert found.cost_of(MODEL.layers) == pytest.approx(220)
    # Blocks leave 150 weights at the ends dense: 230 - 10 - 150 over 300.
    blocks = budget(MODEL, 0.5, distribution="uniform", cost="params", block="16x16")
    assert blocks.densities == dict.fromkeys(("middle", "second"), pytest.approx(70 / 300))
    # MACs: 900 + 800 + 200 + 50 + 40 = 1990; half less 40, over 1950.
    macs = budget(MODEL, 0.5, distribution="global", cost="macs", block="entry")
    assert macs.densities["first"] == pytest.approx((995 - 40) / 1950)
    assert macs.unit_costs == {"first": 9, "middle": 4, "second": 2, "last": 1}


def test_nothing_is_masked_at_density_1() -> None:
    for block in ("entry", "16x16"):
        for distribution in ("global", "uniform", "erk"):
            found = budget(MODEL, 1.0, distribution=distribution, cost="params", block=block)
            assert set(found.densities.values()) == {1.0}


def test_a_target_that_leaves_no_room_says_why() -> None:
    with pytest.raises(
        UserError, match=r"sparsity=0\.9: parts that are never pruned hold 34\.78 % of the model's params, more than"
    ):
        budget(MODEL, 0.1, distribution="global", cost="params", block="16x16")


@settings(deadline=None)
@given(
    st.sampled_from(["resnet50", "vit_base"]),
    st.sampled_from(["global", "uniform", "erk"]),
    st.sampled_from(["params", "macs"]),
    st.sampled_from(["entry", "32x32"]),
    st.floats(0.12, 1),
)
def test_the_whole_model_meets_its_target(
    backbone: str, distribution: str, cost: str, block: str, density: float
) -> None:
    model = compose([f"backbone={backbone}"]).backbone.paper.dense_model()
    found = budget(model, density, distribution=distribution, cost=cost, block=block)
    masked = masked_layers(model.layers, block)
    dense = [layer for layer in model.layers if layer not in masked]
    if cost == "params":
        spent = found.cost_of(masked) + sum(layer.size for layer in dense) + model.vector_params
        assert spent == pytest.approx(density * model.params, rel=1e-9)
    else:
        spent = found.cost_of(masked) + sum(layer.size * layer.uses for layer in dense) + model.attention_macs
        assert spent == pytest.approx(density * model.macs, rel=1e-9)
    assert all(0 < value <= 1 for value in found.densities.values())


def test_neurons_are_those_of_attention_and_mlp() -> None:
    model = compose(["backbone=vit_base"]).backbone.paper.dense_model()
    assert len(masked_layers(model.layers, "neuron")) == 4 * 12

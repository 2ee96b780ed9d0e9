"""What dropping and mixing tokens costs, by hand, on DeiT-Small: 12 blocks, width 384, 196 patches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from repro.config import Config
from repro.config.compose import compose
from repro.config.costs import method_cost, physical_macs_g, row_cost
from repro.counting.cost_model import Measurements
from repro.counting.keep_rates import KeepRates, result_names
from repro.inference.build import attach_selector, selector_spec
from repro.models.backbone import build_model

WIDTH, PATCHES = 384, 196
DENSE = 196 * 768 * WIDTH + 12 * (197 * 12 * WIDTH**2 + 2 * 197**2 * WIDTH) + WIDTH * 1000


def config_of(*overrides: str) -> Config:
    return compose(["backbone=deit_small", *overrides])


def result(*pairs: tuple[float, float]) -> dict[str, float]:
    named = (zip(result_names(stage), pair, strict=True) for stage, pair in enumerate(pairs, 1))
    return {name: value for pair in named for name, value in pair}


def four_blocks(patches: float, squares: float) -> float:
    """Four blocks for images with this many patches on average, and this mean square of them."""
    return 4 * ((1 + patches) * 12 * WIDTH**2 + 2 * (1 + 2 * patches + squares) * WIDTH)


def interpreter(patches: float) -> float:
    """A query of the class token, keys of the patches that reach it, and their products."""
    return WIDTH**2 + patches * WIDTH**2 + patches * WIDTH


def test_dense_is_counted_as_before() -> None:
    assert row_cost(config_of("method=dense")).macs_g == pytest.approx(DENSE / 1e9)


def test_three_stages_by_hand() -> None:
    """Half of the images keep 0.9, 0.5, 0.3 of the patches, the others 0.7, 0.5, 0.1."""
    measured = result((0.8, (0.81 + 0.49) / 2), (0.5, 0.25), (0.2, (0.09 + 0.01) / 2))
    cost = row_cost(config_of("method=ia_red2"), [measured])
    images = []
    for shares in ((0.9, 0.5, 0.3), (0.7, 0.5, 0.1)):
        left = [share * PATCHES for share in shares]
        macs = 196 * 768 * WIDTH + WIDTH * 1000 + sum(four_blocks(count, count**2) for count in left)
        images.append(macs + sum(interpreter(count) for count in (PATCHES, *left[:2])))
    assert cost.macs_g == pytest.approx(sum(images) / 2 / 1e9, rel=1e-9)
    assert cost.flops_saving_pct == pytest.approx(100 * (1 - sum(images) / 2 / DENSE))
    assert cost.is_exact
    assert cost.is_measured


def test_one_and_two_stages_divide_the_blocks_evenly() -> None:
    one = row_cost(config_of("method=ia_red2", "method.tokens.interpreters=1"), [result((0.5, 0.25))])
    by_hand = 196 * 768 * WIDTH + WIDTH * 1000 + 3 * four_blocks(98, 98**2) + interpreter(PATCHES)
    assert one.macs_g == pytest.approx(by_hand / 1e9)
    two = row_cost(config_of("method=ia_red2", "method.tokens.interpreters=2"), [result((1.0, 1.0), (0.5, 0.25))])
    rest = 1.5 * four_blocks(196, 196**2) + 1.5 * four_blocks(98, 98**2) + 2 * interpreter(PATCHES)
    assert two.macs_g == pytest.approx((196 * 768 * WIDTH + WIDTH * 1000 + rest) / 1e9)


def test_the_plans_rates_make_the_published_budget() -> None:
    for interpreters in (1, 2, 3):
        cost = row_cost(config_of("method=ia_red2", f"method.tokens.interpreters={interpreters}"))
        assert cost.macs_g == pytest.approx(3.15, abs=0.01)
        assert not cost.is_exact, "no run has measured it"
        assert not cost.is_measured


def test_seeds_are_averaged_and_a_result_without_rates_measures_nothing() -> None:
    config = config_of("method=ia_red2", "method.tokens.interpreters=1")
    both = row_cost(config, [result((0.4, 0.16)), result((0.6, 0.36))]).macs_g
    assert both == pytest.approx(row_cost(config, [result((0.5, 0.26))]).macs_g)
    assert not row_cost(config, [{"top1_last_pct": 80.0}]).is_measured
    assert KeepRates.measured([], 3) is None


@pytest.mark.parametrize("method", ["ia_red2", "random_dropping", "attention_dropping", "linformer"])
@pytest.mark.parametrize("backbone", ["deit_small", "deit_base"])
def test_parameters_are_those_of_the_model(method: str, backbone: str) -> None:
    config = compose([f"backbone={backbone}", f"method={method}", "scale=paper", "data.root=x"])
    model = build_model(config.model, 0.0, 0)
    attach_selector(model, selector_spec(config))
    counted = sum(weight.numel() for weight in model.parameters())
    assert row_cost(config).params_m * 1e6 == pytest.approx(counted, abs=0.5)


def test_baselines_pay_for_what_they_ask() -> None:
    measured = Measurements([result((0.8, 0.64), (0.5, 0.25), (0.2, 0.04))])
    macs = {
        name: method_cost((config := config_of(f"method={name}")).backbone.paper, config.method, measured).macs_g * 1e9
        for name in ("ia_red2", "random_dropping", "attention_dropping")
    }
    asked = sum(interpreter(count) for count in (196, 0.8 * 196, 0.5 * 196))
    assert macs["attention_dropping"] == pytest.approx(macs["random_dropping"] + asked)
    assert macs["ia_red2"] == pytest.approx(macs["attention_dropping"])


def test_linformer_by_hand() -> None:
    """Keys and values of 64 mixtures: products with them, and the mixing, in place of products with 197 tokens."""
    config = config_of("method=linformer")
    macs = DENSE - 12 * 2 * 197**2 * WIDTH + 12 * (2 * 197 * 64 * WIDTH + 2 * 64 * 197 * WIDTH)
    cost = row_cost(config)
    assert cost.macs_g == pytest.approx(macs / 1e9)
    assert cost.params_m == pytest.approx(row_cost(config_of("method=dense")).params_m + 12 * 2 * 64 * 197 / 1e6)
    assert cost.is_exact


def test_what_is_timed_is_what_is_counted() -> None:
    """Spread over images: the mean square is that of an even spread. Only patches have no keys when they are scored."""
    config = config_of(
        "method=ia_red2", "method.tokens.keep_spread=0.3", "method.tokens.interpreters=1", "scale=paper", "data.root=x"
    )
    rate = config.method.tokens.options["keep_rates"][0]  # type: ignore[union-attr]
    shares = [rate * (1 + 0.3 * (2 * (i + 0.5) / 1000 - 1)) for i in range(1000)]
    measured = result((sum(shares) / 1000, sum(share**2 for share in shares) / 1000))
    counted = row_cost(config, [measured])
    # The query, the query through the six heads' keys, and six products for each patch.
    scored = 2 * WIDTH**2 + PATCHES * 6 * WIDTH
    as_run = counted.macs_g - (interpreter(PATCHES) - scored) / 1e9
    assert physical_macs_g(config.model, config.method) == pytest.approx(as_run, rel=1e-4)
    assert counted.physical_saving_pct == pytest.approx(100 * (1 - as_run * 1e9 / DENSE))


@pytest.mark.parametrize("method", ["ia_red2", "attention_dropping", "random_dropping"])
def test_what_runs_is_what_is_counted_as_physical(method: str) -> None:
    """By torch's own counter, through a model that keeps as many patches as the plan says, every image the same."""
    options = (
        ("method.tokens.interpreters=2", "method.tokens.keep_rates=[0.75,0.5]", "method.tokens.keep_spread=0")
        if method == "ia_red2"
        else ("method.tokens.keep_rates=[0.75,0.5]", "method.tokens.budget=config")
    )
    config = compose(["backbone=deit_tiny", f"method={method}", "scale=local", "model.num_heads=3", *options])
    model = build_model(config.model, 0.0, 0)
    part = attach_selector(model, selector_spec(config))
    assert part is not None
    part.apply_planned_cost()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.randn(1, *config.model.input_shape))
    assert counter.get_total_flops() == pytest.approx(2e9 * physical_macs_g(config.model, config.method))

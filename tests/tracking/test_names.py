"""Metric names: metrics of another scale cannot be mistaken for those on the published data set."""

from __future__ import annotations

import re

import pytest
from mirrored import ROW, eval_entry, result_of_run, train_entry

from repro.config.compose import compose
from repro.tables.loader import load_table
from repro.tracking.current_cost import CurrentCost
from repro.tracking.metric_names import names_of, step_of


@pytest.mark.parametrize(
    ("overrides", "group"),
    [
        (["scale=local"], "local"),
        (["scale=smoke"], "smoke"),
        (["scale=local", "data=imagenet", "data.root=x"], "local"),
        (["scale=paper", "data.root=x"], "eval"),
        (["scale=paper", "data=imagefolder", "data.root=x"], "other_data"),
        (["scale=paper", "data.root=x", "recipe.lr=0.001"], "other_config"),
    ],
)
def test_accuracies_of_other_scales_have_names_of_their_own(overrides: list[str], group: str) -> None:
    config = compose([*ROW.overrides, *overrides])
    names = names_of("table1", ROW.id, config)
    result = result_of_run(config)
    logged = {**names.logged(train_entry(4)), **names.logged(eval_entry(4))}
    every = {**logged, **names.summary(result), **names.against_published(result)}
    plain = [name for name in every if re.fullmatch(r"(eval|result|delta|deit_small)/(top|loss|train_loss).*", name)]
    assert bool(plain) == (group == "eval")
    assert f"{group}/top1_pct" in every
    assert f"{group}/top1_ema_pct" in every
    assert names.result(names.summary(result)) == result


def test_names_are_grouped() -> None:
    names = names_of("by_hand", "deit_small/svite-50", compose(["method=svite"]))
    entry = {**train_entry(8), "temperature": 1.0, "density/blocks.0.attn.qkv": 0.3, "model_macs_g": 0.1}
    assert set(names.logged(entry)) == {
        "train/loss", "train/learning_rate", "train/epoch", "sparsity/density", "sparsity/churn",
        "tokens/token_keep_rate", "tokens/temperature", "speed/step_time_ms", "speed/images_per_s",
        "speed/loader_share_pct",
        "density/blocks.0.attn.qkv", "cost/model_macs_g", "deit_small/local_train_loss", "update",
    }  # fmt: skip
    assert "published/top1_pct" not in names.logged(eval_entry(8))  # a single run has no published row


def test_the_published_accuracy_is_a_flat_line() -> None:
    names = names_of("table1", ROW.id, compose(ROW.overrides))
    lines = [names.logged(eval_entry(update)) for update in (4, 8)]
    assert [line["published/top1_pct"] for line in lines] == [80.18, 80.18]


def test_steps_rise_with_the_training_and_never_meet() -> None:
    order = [(0, "masks"), (4, "masks"), (4, "train"), (4, "eval"), (4, "other"), (5, "train")]
    steps = [step_of({"update": update, "kind": kind}) for update, kind in order]
    assert steps == sorted(set(steps))


def test_macs_of_the_model_follow_its_density() -> None:
    config = compose(["method=svite", "method.sparsity=0.5"])
    dense, half = (CurrentCost(config).after({"density": density}) for density in (1.0, 0.5))
    assert half < dense
    # With densities of all layers: those of the dense model if all are 1.
    layers = {f"density/{layer.name}": 1.0 for layer in config.model.layers(config.model.tokens)}
    assert CurrentCost(config).after({**layers, "density": 0.5}) == pytest.approx(dense)
    fixed = compose(load_table("table1").select(["deit_small/s2vite-40"])[0].overrides)
    assert CurrentCost(fixed).after({}) < CurrentCost(compose(["backbone=deit_small", "method=dense"])).after({})


def test_macs_stay_exact_between_two_entries_with_every_layer() -> None:
    # gmp prunes by magnitude over all layers, so layer densities differ from a uniform distribution of the density.
    config = compose(["method=gmp", "method.sparsity=0.5"])
    names = [layer.name for layer in config.model.layers(config.model.tokens)]
    layers = {f"density/{name}": 1.0 if "fc" in name else 0.1 for name in names}
    exact = CurrentCost(config).after(layers)
    assert CurrentCost(config).after({"density": 0.6}) != pytest.approx(exact)
    cost = CurrentCost(config)
    assert [cost.after(entry) for entry in (layers, {"density": 0.6}, {"density": 0.6})] == [exact] * 3
    fewer = {**layers, f"density/{names[0]}": 0.05}
    assert cost.after(fewer) < exact
    assert cost.after({"density": 0.59}) == cost.after(fewer)

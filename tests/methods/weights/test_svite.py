"""SViTE's options on one model: what each is scored by, and that all keep what they promise."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_runs import small_config
from torch import nn

from repro.counting.schedule import UpdateSchedule
from repro.errors import UserError
from repro.methods.weights.svite import SViTE, exchange
from repro.models.backbone import build_model

SCHEDULE = UpdateSchedule(interval=2, end=9, total=12)


def svite(net: nn.Module, **changes: object) -> SViTE:
    options: dict[str, object] = {
        **{"sparsity": 0.5, "distribution": "erk", "prune": "magnitude", "growth": "gradient", "decay": "as_paper"},
        **{"update_fraction": 0.5, "schedule": SCHEDULE, "seed": 0},
    }
    return SViTE(net, **{**options, **changes})  # type: ignore[arg-type]


def model() -> nn.Module:
    return build_model(small_config().model, 0.0, seed=3)


def gradients(net: nn.Module, update: int) -> None:
    generator = torch.Generator().manual_seed(update)
    for weight in net.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


@pytest.mark.parametrize(
    ("distribution", "prune", "growth", "decay"),
    list(
        itertools.product(
            ("erk", "uniform", "global"),
            ("magnitude", "random"),
            ("gradient", "momentum", "random"),
            ("as_paper", "as_released"),
        )
    ),
)
def test_every_combination_keeps_its_density_and_stops_at_t_end(
    distribution: str, prune: str, growth: str, decay: str
) -> None:
    net = model()
    part = svite(net, distribution=distribution, prune=prune, growth=growth, decay=decay)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    part.start(optimizer)
    active, layers = part.masks.active, part.masks.layer_density()
    seen = []
    for update in range(1, 13):
        before = {name: part.masks[name] for name in part.masks.layers}
        gradients(net, update)
        optimizer.step()
        part.after_step(update)
        assert part.masks.active == active
        if distribution != "global":
            assert part.masks.layer_density() == layers
        for name, weight in part.masks.weights.items():
            assert not weight[~part.masks[name]].any()
            if layers[name] == 1 and distribution != "global":
                assert torch.equal(part.masks[name], before[name]), "dense layers are left alone"
        if any(not torch.equal(part.masks[name], before[name]) for name in before):
            seen.append(update)
    assert seen == [2, 4, 6, 8], "not from T_end (9) on"
    assert part.mask_updates == 4
    assert part.masks.ever_active > part.masks.density


def test_an_update_of_the_part_is_an_exchange_in_each_layer() -> None:
    net = model()
    part = svite(net)
    gradients(net, 1)
    part.after_step(1)
    expected = {
        name: exchange(part.masks[name], weight.detach().abs(), weight.grad.abs(), 0.25 * (1 + 0.7660444431189781))
        for name, weight in part.masks.weights.items()
        if weight.grad is not None
    }  # cos(pi 2/9) = 0.76604
    part.after_step(2)
    assert all(torch.equal(part.masks[name], mask) for name, mask in expected.items())


def test_random_choices_depend_on_the_seed_and_the_update_only() -> None:
    parts = []
    for seed in (0, 0, 1):
        net = model()
        part = svite(net, prune="random", growth="random", seed=seed)
        torch.rand(seed + 3)  # what else was drawn does not matter
        for update in (1, 2, 3, 4):
            part.after_step(update)
        parts.append(part)
    layer = "blocks.0.mlp.fc1"
    assert torch.equal(parts[0].masks[layer], parts[1].masks[layer])
    assert not torch.equal(parts[0].masks[layer], parts[2].masks[layer])


def test_momentum_needs_an_optimizer_that_has_one() -> None:
    net = model()
    part = svite(net, growth="momentum")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(UserError, match="has no first moment; use adamw"):
        part.start(optimizer)
    part.start(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))


def test_the_history_is_told_once_an_update() -> None:
    net = model()
    part = svite(net)
    start = part.mask_history(0)
    assert start is not None
    assert (start["churn"], start["ever_active"]) == (0, start["density"])
    gradients(net, 1)
    part.after_step(1)
    assert part.mask_history(1) is None
    part.after_step(2)
    entry = part.mask_history(2)
    assert entry is not None
    assert 0 < entry["churn"] <= 0.5
    assert entry["density"] == start["density"]
    assert entry["ever_active"] == pytest.approx(start["density"] * (1 + entry["churn"]))
    assert entry["density/head"] == round(part.masks.layer_density()["head"], 6)


@pytest.mark.parametrize("sparsity", ["1.0", "-0.1", "nan"])
@pytest.mark.parametrize("method", ["svite", "omp", "gmp", "tp", "ssp", "s2vite"])
def test_a_sparsity_outside_is_refused_before_anything_runs(method: str, sparsity: str) -> None:
    with pytest.raises(UserError, match="sparsity"):
        small_config(f"method={method}", f"method.sparsity={sparsity}")


def test_a_schedule_longer_than_the_training_is_refused() -> None:
    for method in ("svite", "gmp", "s2vite"):
        with pytest.raises(UserError, match="masks would change until update 13"):
            small_config(f"method={method}", "method.sparsity=0.4", "method.weights.update_end_iterations=1600000")


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match=r"does not divide model\.embed_dim"):
        small_config("method=s2vite", "method.sparsity=0.4", "model.num_heads=5")

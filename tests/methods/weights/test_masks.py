"""Masks: one byte a weight, two facts; and pruning to a density, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repro.counting.schedule import UpdateSchedule
from repro.errors import UserError
from repro.methods.weights.gmp import GMP, ramped_sparsity
from repro.methods.weights.masks import Masks, prunable_weights
from repro.methods.weights.omp import OMP
from repro.methods.weights.pruning import prune_to
from repro.methods.weights.tp import TP


class Dense(nn.Linear):
    keep_dense = True


def two_layers() -> nn.Module:
    """`0`: weights 1 to 4; `1`: weights 5, -6, 0.5, 0.25 and signs that do not matter."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2), Dense(2, 2))
    model[0].weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    model[1].weight.data = torch.tensor([[5.0, -6.0], [0.5, -0.25]])
    return model


def held(masks: Masks) -> list[list[int]]:
    return [masks[name].int().flatten().tolist() for name in masks.layers]


def refuse(_: int) -> None:
    raise AssertionError("magnitudes need no gradient")


def test_what_is_prunable() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(2), nn.Linear(2, 2), Dense(2, 2))
    assert list(prunable_weights(model)) == ["0", "2"]


def test_active_and_ever_active_share_a_byte() -> None:
    model = two_layers()
    masks = Masks(prunable_weights(model))
    assert (masks.density, masks.ever_active) == (1, 1)
    masks.reset({"0": torch.tensor([[1, 0], [1, 0]]).bool(), "1": torch.ones(2, 2).bool()})
    assert (masks.density, masks.ever_active) == (0.75, 0.75)
    assert model[0].weight.tolist() == [[1, 0], [3, 0]]
    assert masks.replace("0", torch.tensor([[0, 1], [1, 0]]).bool()) == 1
    assert (masks.density, masks.ever_active, masks.active) == (0.75, 0.875, 6)
    assert masks.layer_density() == {"0": 0.5, "1": 1.0}
    assert model[0].weight.tolist() == [[1, 0], [3, 0]], "weights change when masks are applied"
    masks.apply()
    assert model[0].weight.tolist() == [[0, 0], [3, 0]]
    state = masks.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.uint8}
    other = Masks(prunable_weights(two_layers()))
    other.load_state_dict(state)
    assert held(other) == held(masks)
    assert (other.density, other.ever_active) == (0.75, 0.875)
    copy = two_layers()
    masks.apply_to(copy)
    assert copy[0].weight.tolist() == [[0, -2], [3, 0]]
    assert copy[3].weight.tolist() != [[0, 0], [0, 0]]


def test_random_masks_have_their_density_and_the_seed_decides() -> None:
    layer = {"a": nn.Parameter(torch.ones(100, 100)), "b": nn.Parameter(torch.ones(10, 10))}
    masks = Masks.random(layer, {"a": 0.3, "b": 1.0}, seed=1)
    assert masks.layer_density()["a"] == pytest.approx(0.3, abs=0.02)
    assert masks.layer_density()["b"] == 1
    assert torch.equal(masks["a"], Masks.random(layer, {"a": 0.3, "b": 1.0}, seed=1)["a"])
    assert not torch.equal(masks["a"], Masks.random(layer, {"a": 0.3, "b": 1.0}, seed=2)["a"])
    with pytest.raises(UserError, match="layer b with 100 weights keeps none"):
        Masks.random(layer, {"a": 0.3, "b": 1e-9}, seed=1)


def test_omp_by_hand() -> None:
    model = two_layers()
    part = OMP(model, sparsity=0.5, distribution="global", seed=0)
    part.prepare(refuse)
    assert held(part.masks) == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert model[1].weight.tolist() == [[5, -6], [0, 0]]
    assert part.masks.ever_active == 0.5
    part = OMP(two_layers(), sparsity=0.25, distribution="uniform", seed=0)
    part.prepare(refuse)
    assert held(part.masks) == [[0, 1, 1, 1], [1, 1, 1, 0]]


def test_tp_by_hand() -> None:
    model = two_layers()
    asked: list[int] = []

    def backward(batches: int) -> None:
        asked.append(batches)
        model[0].weight.grad = torch.tensor([[9.0, 1.0], [-1.0, 0.1]])  # scores 9, 2, 3, 0.4
        model[1].weight.grad = torch.tensor([[0.5, 0.1], [0.0, 16.0]])  # scores 2.5, 0.6, 0, 4

    part = TP(model, sparsity=0.5, distribution="global", scoring_batches=7, seed=0)
    part.prepare(backward)
    assert asked == [7]
    assert held(part.masks) == [[1, 0, 1, 0], [1, 0, 0, 1]]


def test_tp_without_any_gradient_keeps_the_first_weights() -> None:
    model = two_layers()

    def backward(_: int) -> None:
        for layer in (model[0], model[1]):
            layer.weight.grad = torch.zeros(2, 2)

    part = TP(model, sparsity=0.5, distribution="global", scoring_batches=1, seed=0)
    part.prepare(backward)
    assert held(part.masks) == [[1, 1, 1, 0], [1, 0, 0, 0]], "in the model's order, one of each layer at least"


def test_global_pruning_cuts_no_layer_off() -> None:
    masks = Masks(prunable_weights(two_layers()))
    scores = {"0": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "1": torch.tensor([[0.1, 0.3], [0.2, 0.0]])}
    kept = prune_to(masks, scores, "global", 0.25)
    assert [mask.int().flatten().tolist() for mask in kept.values()] == [[0, 0, 0, 1], [0, 1, 0, 0]]


def test_pruning_grows_nothing_and_takes_at_most_what_is_active() -> None:
    masks = Masks(prunable_weights(two_layers()))
    masks.reset({"0": torch.tensor([[1, 0], [0, 1]]).bool(), "1": torch.ones(2, 2).bool()})
    scores = {name: weight.detach().abs() for name, weight in masks.weights.items()}
    for distribution in ("global", "erk", "uniform"):
        for density in (0.9, 0.5, 0.4):
            for name, kept in prune_to(masks, scores, distribution, density).items():
                assert not (kept & ~masks[name]).any()
    assert sum(int(mask.sum()) for mask in prune_to(masks, scores, "global", 0.9).values()) == 6


def test_the_ramp_of_gmp_by_hand() -> None:
    # 0.5 (1 - (1 - t/8)^3) at 0, 2, 4, 8: 0, 0.5 (1 - 27/64), 0.5 (1 - 1/8), 0.5
    found = [ramped_sparsity(update, 0, 8, 0.0, 0.5) for update in (0, 2, 4, 8, 9)]
    assert found == pytest.approx([0, 0.2890625, 0.4375, 0.5, 0.5])
    assert ramped_sparsity(3, 4, 8, 0.1, 0.5) == pytest.approx(0.1)
    assert ramped_sparsity(6, 4, 8, 0.1, 0.5) == pytest.approx(0.5 - 0.4 / 8)


def test_gmp_prunes_along_the_ramp_and_nothing_comes_back() -> None:
    model = two_layers()
    part = GMP(
        model,
        sparsity=0.5,
        initial_sparsity=0.0,
        ramp_start=0.0,
        distribution="global",
        schedule=UpdateSchedule(interval=2, end=9, total=20),
        seed=0,
    )
    densities = []
    for update in range(1, 21):
        model[0].weight.data += torch.where(model[0].weight == 0, 10.0, 0.0)  # would win, if it could come back
        part.after_step(update)
        densities.append(round(part.masks.density * 8))
        assert int((model[0].weight != 0).sum() + (model[1].weight != 0).sum()) == densities[-1]
    # Due at 2, 4, 6, 8: sparsities 0.289, 0.4375, 0.492, 0.5 of 8 weights, to the nearest.
    assert densities == [8, 6, 6, *([4] * 17)]
    assert [part.is_at_target(update) for update in (2, 7, 8, 9, 20)] == [False, False, True, True, True]
    assert held(part.masks) == [[0, 0, 1, 1], [1, 1, 0, 0]]

"""What SViTE exchanges, worked out by hand for every option, on two layers of eight weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from repro.counting.schedule import UpdateSchedule
from repro.methods.weights.svite import SViTE

HALF = UpdateSchedule(interval=2, end=4, total=4)  # at update 2, half of alpha as in the paper
LONG = UpdateSchedule(interval=2, end=10**6, total=10**6)  # alpha all along


def svite(net: nn.Module, **changes: object) -> SViTE:
    options: dict[str, object] = {
        **{"sparsity": 0.5, "distribution": "uniform", "prune": "magnitude", "growth": "gradient"},
        **{"decay": "as_paper", "update_fraction": 1.0, "schedule": HALF, "seed": 0},
    }
    return SViTE(net, **{**options, **changes})  # type: ignore[arg-type]


def row(*values: float) -> Tensor:
    """Eight numbers, zeros where none is given, as a layer's (2, 4)."""
    return torch.tensor([*values, *[0.0] * (8 - len(values))], dtype=torch.float32).view(2, 4)


def two_layers(**changes: object) -> tuple[nn.Module, SViTE]:
    """`0` is active at 0 to 3, with 1, -2, 3, -4; `1` at 0 and 1, with 0.5 and -6."""
    net = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(4, 2, bias=False))
    part = svite(net, **changes)
    for layer, weights in (("0", row(1, -2, 3, -4)), ("1", row(0.5, -6))):
        part.masks.weights[layer].data = weights
    part.masks.reset({"0": row(1, 1, 1, 1).bool(), "1": row(1, 1).bool()})
    return net, part


def give(part: SViTE, *gradients: Tensor) -> None:
    for weight, gradient in zip(part.masks.weights.values(), gradients, strict=True):
        weight.grad = gradient.clone()


def held(part: SViTE) -> list[list[int]]:
    return [part.masks[name].int().flatten().tolist() for name in part.masks.layers]


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_each_layer_exchanges_half_of_its_own(distribution: str) -> None:
    _, part = two_layers(distribution=distribution)
    give(part, row(0, 0, 0, 0, 1, -5, 3, 2), row(0, 0, 9, -8, 0.1))
    part.after_step(2)
    # 0: two of four leave, 1 and -2, for gradients -5 and 3. 1: one of two leaves, 0.5, for gradient 9.
    assert held(part) == [[0, 0, 1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0, 0, 0]]
    assert part.exchanged == 3


def test_global_lets_the_layers_compete() -> None:
    _, part = two_layers(distribution="global")
    give(part, row(0, 0, 0, 0, 1, -5, 3, 2), row(0, 0, 9, -8, 0.1))
    part.after_step(2)
    # Three of all six leave, 0.5, 1 and -2, for gradients 9, -8 and -5: layer 0 loses one to layer 1.
    assert held(part) == [[0, 0, 1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]]
    assert part.exchanged == 3
    assert part.masks.layer_density() == {"0": 3 / 8, "1": 3 / 8}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_momentum_grows_by_the_first_moment(optimizer: str) -> None:
    net, part = two_layers(growth="momentum")
    made: torch.optim.Optimizer
    if optimizer == "adamw":
        made = torch.optim.AdamW(net.parameters(), lr=0.0, betas=(0.9, 0.999))
    else:
        made = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    part.start(made)
    give(part, row(0, 0, 0, 0, -8, 0, -7, 6.5), row(0, 0, 0, 4))
    made.step()
    part.after_step(1)
    give(part, row(0, 0, 0, 0, 7, -5), row(0, 0, 3))
    made.step()
    part.after_step(2)
    # 0.9 * first + second, at places 4 to 7: -0.2, -5, -6.3, 5.85; in layer 1 at 2 and 3: 3 and 3.6. The gradient alone
    # would choose 4 and 5, and 2; the second moment 4 and 6.
    assert held(part) == [[0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 0, 0, 0]]


def large(layers: int = 1, **changes: object) -> SViTE:
    """Layers of 10 000 weights, 1 to 10 000; the even places are active, the gradient grows with the place."""
    part = svite(nn.Sequential(*[nn.Linear(100, 100, bias=False) for _ in range(layers)]), **changes)
    places = torch.arange(10_000).view(100, 100)
    for weight in part.masks.weights.values():
        weight.data = (places + 1.0).clone()
        weight.grad = (places + 1.0) * (places % 2)
    part.masks.reset(dict.fromkeys(part.masks.layers, places % 2 == 0))
    return part


def quarters(mask: Tensor) -> list[float]:
    """Where the true entries of a mask lie: their shares by quarter of the places."""
    return [float(part.sum()) / int(mask.sum()) for part in mask.flatten().split(mask.numel() // 4)]


def test_random_pruning_takes_small_and_large_alike() -> None:
    part = large(prune="random")
    before = part.masks["0"]
    part.after_step(2)
    pruned, grown = before & ~part.masks["0"], part.masks["0"] & ~before
    assert int(pruned.sum()) == int(grown.sum()) == 2500
    assert quarters(pruned) == pytest.approx([0.25] * 4, abs=0.04)
    assert quarters(grown) == [0, 0, 0.5, 0.5], "the 2500 of largest gradient"


def test_random_growth_looks_at_no_gradient() -> None:
    part = large(growth="random")
    before = part.masks["0"]
    part.after_step(2)
    pruned, grown = before & ~part.masks["0"], part.masks["0"] & ~before
    assert quarters(pruned) == pytest.approx([0.5, 0.5, 0, 0], abs=0.04), "of least magnitude, where none came back"
    assert quarters(grown) == pytest.approx([0.25] * 4, abs=0.04)


def test_random_pruning_and_growth_are_drawn_apart() -> None:
    part = large(prune="random", growth="random")
    part.after_step(2)
    # 2500 of 5000 leave; of 7500 places that are then free 2500 are taken, and a third of those is where one left.
    assert part.exchanged == pytest.approx(2500 * 2 / 3, rel=0.05)


def test_each_layer_update_and_seed_has_its_own_draw() -> None:
    pruned = []
    for seed, update in ((0, 2), (0, 4), (1, 2)):
        part = large(2, prune="random", schedule=LONG, update_fraction=0.5, seed=seed)
        before = part.masks["0"]
        part.after_step(update)
        pruned += [before & ~part.masks[name] for name in part.masks.layers]
    for one, other in itertools.combinations(pruned, 2):
        assert float((one & other).sum()) / 2500 == pytest.approx(0.5, abs=0.05), "as many in common as by chance"


# Of 100 active weights at alpha 0.5. As in the paper 0.25 (1 + cos(pi t / 8)) at 2, 4, 6: 0.4268, 0.25, 0.0732. As
# released 0.005 + 0.2475 (1 + cos(pi t / 16)): 0.4812, 0.4275, 0.3472. Rounded up.
@pytest.mark.parametrize(("decay", "expected"), [("as_paper", [43, 25, 8]), ("as_released", [49, 43, 35])])
@pytest.mark.parametrize("distribution", ["uniform", "global"])
def test_fewer_are_exchanged_as_training_goes_on(distribution: str, decay: str, expected: list[int]) -> None:
    schedule = UpdateSchedule(interval=2, end=8, total=16)
    net = nn.Linear(20, 10, bias=False)
    part = svite(nn.Sequential(net), distribution=distribution, decay=decay, update_fraction=0.5, schedule=schedule)
    part.masks.reset({"0": torch.arange(200).view(10, 20) < 100})
    exchanged = []
    for update in range(1, 17):
        net.weight.grad = (~part.masks["0"]).float()  # nothing that leaves comes back at once
        part.after_step(update)
        if update in (2, 4, 6):
            exchanged.append(part.exchanged)
    assert exchanged == expected
    assert part.mask_updates == 3


def test_the_distribution_says_what_each_layer_starts_with() -> None:
    net = nn.Sequential(nn.Linear(100, 100, bias=False), nn.Linear(100, 400, bias=False))
    # ERK: 200 / 10 000 and 500 / 40 000 times f, with f * (200 + 500) = 25 000.
    for distribution, expected in (("erk", [5 / 7, 25 / 56]), ("uniform", [0.5, 0.5]), ("global", [0.5, 0.5])):
        densities = svite(net, distribution=distribution).masks.layer_density()
        assert list(densities.values()) == pytest.approx(expected, abs=0.02)

"""OMP, GMP and TP on layers of unlike size: what competes with what, and how far along a ramp, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repro.counting.schedule import UpdateSchedule
from repro.methods.weights.gmp import GMP
from repro.methods.weights.masked import MaskedWeights
from repro.methods.weights.masks import Masks
from repro.methods.weights.omp import OMP
from repro.methods.weights.pruning import prune_to
from repro.methods.weights.tp import TP

ONE_STEP = UpdateSchedule(interval=2, end=3, total=4)
SMALL = torch.tensor([1.0, -2, 3, -4]).view(2, 2)
WIDE = torch.tensor([5.0, -6, 7, -8, 9, -10, 11, -0.1, 0.2, -0.3, 0.4, -0.5]).view(2, 6)

# Half of 16 weights is 8. Global: 5 to 11 of the wide layer, and 4. Uniform: 2 of 4 and 6 of 12. ERK: raw densities
# 4 / 4 and 8 / 12, f * (4 + 8) = 8, so 2/3 of 4 and 4/9 of 12: to the nearest 3 and 5.
KEPT = {
    "global": ([0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]),
    "uniform": ([0, 0, 1, 1], [0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]),
    "erk": ([0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]),
}


def layers(*weights: Tensor) -> nn.Module:
    model = nn.Sequential(*[nn.Linear(weight.shape[1], weight.shape[0], bias=False) for weight in weights])
    for layer, weight in zip(model, weights, strict=True):
        layer.weight.data = weight.clone()  # type: ignore[union-attr]
    return model


def refuse(_: int) -> None:
    raise AssertionError("magnitudes need no gradient")


def omp(distribution: str) -> MaskedWeights:
    part = OMP(layers(SMALL, WIDE), sparsity=0.5, distribution=distribution, seed=0)
    part.prepare(refuse)
    return part


def gmp(distribution: str) -> MaskedWeights:
    part = GMP(
        layers(SMALL, WIDE),
        **{"sparsity": 0.5, "initial_sparsity": 0.0, "ramp_start": 0.0},  # type: ignore[arg-type]
        **{"distribution": distribution, "schedule": ONE_STEP, "seed": 0},  # type: ignore[arg-type]
    )
    part.after_step(2)
    return part


def tp(distribution: str) -> MaskedWeights:
    """Weights of magnitude 1 over the score, so that weights alone say the opposite of weight * gradient."""
    model = layers(1 / SMALL.abs(), 1 / WIDE.abs())

    def backward(_: int) -> None:
        for layer, score in zip(model, (SMALL, WIDE), strict=True):
            layer.weight.grad = score * score.abs()  # type: ignore[union-attr]

    part = TP(model, sparsity=0.5, distribution=distribution, scoring_batches=1, seed=0)
    part.prepare(backward)
    return part


@pytest.mark.parametrize("distribution", list(KEPT))
@pytest.mark.parametrize("method", [omp, gmp, tp])
def test_what_competes_with_what(method: Callable[[str], MaskedWeights], distribution: str) -> None:
    part = method(distribution)
    assert tuple(part.masks[name].int().flatten().tolist() for name in part.masks.layers) == KEPT[distribution]
    for name, weight in part.masks.weights.items():
        assert torch.equal(weight != 0, part.masks[name])
    assert part.masks.density == 0.5


def test_gmp_starts_where_and_when_it_is_told_to() -> None:
    # The ramp begins a quarter of the way to update 8, at 2. With 0.1 to 0.5, a third of the way each: 0.1, 0.5 - 0.4 *
    # 8 / 27 = 0.3815, 0.5 - 0.4 / 27 = 0.4852, 0.5. To the nearest of 1000 weights.
    part = GMP(
        layers(torch.arange(1.0, 1001).view(10, 100)),
        **{"sparsity": 0.5, "initial_sparsity": 0.1, "ramp_start": 0.25, "distribution": "global"},  # type: ignore[arg-type]
        **{"schedule": UpdateSchedule(interval=2, end=10, total=20), "seed": 0},  # type: ignore[arg-type]
    )
    active, exchanged = [], []
    for update in range(1, 13):
        part.after_step(update)
        active.append(part.masks.active)
        exchanged.append(part.exchanged)
    assert active == [1000, 900, 900, 619, 619, 515, 515, 500, 500, 500, 500, 500]
    assert exchanged == [0] * 12, "nothing comes in"
    assert part.mask_updates == 4
    assert part.masks["0"].flatten().tolist() == [False] * 500 + [True] * 500


@pytest.mark.parametrize("distribution", list(KEPT))
def test_a_density_is_of_all_weights_whatever_is_active(distribution: str) -> None:
    masks = Masks({"0": nn.Parameter(SMALL.clone()), "1": nn.Parameter(WIDE.clone())})
    masks.reset({"0": torch.ones(2, 2, dtype=torch.bool), "1": WIDE.abs() > 5})
    kept = prune_to(masks, {"0": SMALL.abs(), "1": WIDE.abs()}, distribution, 0.25)
    # 4 of 16, where 10 are active. ERK: a third of 4 and two ninths of 12, to the nearest 1 and 3.
    assert [mask.flatten().nonzero().flatten().tolist() for mask in kept.values()] == [[3], [4, 5, 6]]

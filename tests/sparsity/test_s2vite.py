"""Structured training: what growth finds, on a small transformer with gradients made by hand and by backward."""

from __future__ import annotations

import pytest
import torch
from small_runs import small_config
from torch import Tensor, nn

from repro.errors import UserError
from repro.models.vit import build_vit
from repro.schedule import UpdateSchedule
from repro.sparsity.s2vite import S2ViTE
from repro.sparsity.ssp import SSP
from repro.sparsity.units import OutputProbe, UnitGroup

SCHEDULE = UpdateSchedule(interval=2, end=41, total=50)


def model() -> nn.Module:
    return build_vit(small_config().model, 0.0, seed=3)


def part(net: nn.Module, growth: str, **changes: object) -> S2ViTE:
    options: dict[str, object] = {
        **{"sparsity": 0.3, "heads_density": 0.7, "neurons_density": 0.5, "growth": growth, "decay": "as_paper"},
        **{"update_fraction": 0.5, "schedule": SCHEDULE, "seed": 0},
    }
    return S2ViTE(net, **{**options, **changes})  # type: ignore[arg-type]


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.randint(0, 10, (16,), generator=generator)


def train(net: nn.Module, method: S2ViTE, updates: int) -> list[dict[str, Tensor]]:
    """Ordinary training; returns the active units after each update."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    history = []
    for update in range(1, updates + 1):
        optimizer.zero_grad()
        method.before_update(update)
        images, labels = batch(update)
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        method.after_step(update)
        history.append({group.name: group.active.clone() for group in method.groups})
    return history


def neurons(method: S2ViTE) -> list[UnitGroup]:
    return [group for group in method.groups if group.kind == "neurons"]


def test_as_released_keeps_its_neurons_for_ever() -> None:
    """What has never been active has no gradient, so growth takes back exactly what was just pruned."""
    net = model()
    method = part(net, "as_released")
    start = {group.name: group.active.clone() for group in method.groups}
    history = train(net, method, 40)
    for states in history:
        for group in neurons(method):
            assert torch.equal(states[group.name], start[group.name])
    assert method.mask_updates == 20
    assert method.metrics()["neurons_ever_active"] == method.metrics()["neurons_density"] == 0.5


def test_gate_finds_neurons_that_were_never_active() -> None:
    net = model()
    method = part(net, "gate")
    start = {group.name: group.active.clone() for group in method.groups}
    history = train(net, method, 40)
    for group in neurons(method):
        assert not torch.equal(history[-1][group.name], start[group.name])
        assert int(history[-1][group.name].sum()) == int(start[group.name].sum()), "as many as before"
    assert method.metrics()["neurons_ever_active"] > 0.8
    assert method.metrics()["heads_ever_active"] > method.metrics()["heads_density"]
    changes = [update + 1 for update in range(1, 40) if not _alike(history[update], history[update - 1])]
    assert changes
    assert set(changes) <= set(range(2, 41, 2)), "only where it is due"


def _alike(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("growth", ["gate", "as_released"])
def test_inactive_units_own_nothing_but_zeros_after_every_update(growth: str) -> None:
    net = model()
    method = part(net, growth)
    for update in range(1, 7):
        train_once(net, method, update)
        for group in method.groups:
            for owned in group.owned:
                assert not owned.read(~group.active).any()


def train_once(net: nn.Module, method: S2ViTE, update: int) -> None:
    net.zero_grad()
    method.before_update(update)
    images, labels = batch(update)
    nn.functional.cross_entropy(net(images), labels).backward()
    with torch.no_grad():
        for weight in net.parameters():
            assert weight.grad is not None
            weight -= 0.1 * weight.grad
    method.after_step(update)


def test_a_closed_gate_changes_nothing_and_its_gain_is_what_opening_it_gains() -> None:
    """Finite differences of the gate against the score, in float64, for active and inactive units."""
    net = model().double().eval()
    method = part(net, "gate")
    images, labels = batch(0)
    images = images.double()
    closed = nn.functional.cross_entropy(net(images), labels).detach()
    method.before_update(2)
    probe = method._probes[1]
    assert probe.group.kind == "neurons"
    loss = nn.functional.cross_entropy(net(images), labels)
    torch.testing.assert_close(loss, closed)
    loss.backward()
    gain = probe.gain.clone()
    assert probe.gate is not None
    step = 1e-5
    for unit in (0, 1, 2, 3, 20, 40):
        probe.gate[unit] += step
        with torch.enable_grad():
            opened = float(nn.functional.cross_entropy(net(images), labels).detach())
        probe.gate[unit] -= step
        assert float(gain[unit]) == pytest.approx((float(closed) - opened) / step, rel=1e-2, abs=1e-6)
    assert gain[~probe.group.active].abs().max() > 0


def test_the_taylor_score_of_a_head_by_hand() -> None:
    reader = nn.Linear(4, 1, bias=False)
    reader.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    group = UnitGroup("blocks.0.attn", "heads", reader, (), torch.ones(2, dtype=torch.bool))
    probe = OutputProbe(group, gated=False)
    outputs = torch.tensor([[[1.0, 1.0, 0.0, -1.0]], [[0.0, -2.0, 1.0, 0.0]]], requires_grad=True)
    reader(outputs).sum().backward()
    probe.close()
    # g * x summed over tokens and width: image 1: 1 + 2 = 3 and -4; image 2: -4 and 3.
    assert probe.taylor.tolist() == [7, 7]
    assert probe.gain.tolist() == [1, 1]
    assert probe.gradient_l1.tolist() == [6, 14]


def test_weights_of_a_unit_come_back_as_they_left() -> None:
    net = model()
    method = part(net, "gate")
    group = neurons(method)[0]
    fc1 = group.owned[0].parameter
    untouched = model().blocks[0].mlp.fc1.weight  # type: ignore[union-attr, index]
    train(net, method, 4)
    grown_now = group.active & ~group.ever_active
    assert not grown_now.any()
    # A unit that has never been active still has the weights it was initialised with, wherever they are kept.
    never = ~group.ever_active
    if never.any():
        method.before_update(6)
        assert torch.equal(fc1[never], untouched[never])


@pytest.mark.parametrize("densities", [(0.3, 0.5), (0.7, 0.01)])
def test_a_block_that_would_keep_nothing_is_refused(densities: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="leaves none"):
        part(model(), "gate", heads_density=densities[0], neurons_density=densities[1])
    with pytest.raises(UserError, match="leaves none"):
        SSP(
            model(),
            sparsity=0.3,
            heads_density=densities[0],
            neurons_density=densities[1],
            scoring_batches=1,
            seed=0,
        )


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="no transformer blocks"):
        part(nn.Linear(2, 2), "gate")


def test_ssp_keeps_the_units_of_largest_salience() -> None:
    net = model()
    method = SSP(net, sparsity=0.5, heads_density=0.7, neurons_density=0.5, scoring_batches=2, seed=0)

    def backward(batches: int) -> None:
        assert batches == 2
        for number in range(batches):
            images, labels = batch(number)
            nn.functional.cross_entropy(net(images), labels).backward()

    # A unit that says nothing has no salience: the first 24 neurons of the first block.
    with torch.no_grad():
        net.blocks[0].mlp.fc2.weight[:, :24] = 0  # type: ignore[union-attr, index]
    method.prepare(backward)
    first = next(group for group in method.groups if group.kind == "neurons")
    assert first.active.tolist() == [False] * 24 + [True] * 24
    assert [int(group.active.sum()) for group in method.groups] == [2, 24, 2, 24]
    state = method.state_dict()
    other = SSP(model(), sparsity=0.5, heads_density=0.7, neurons_density=0.5, scoring_batches=2, seed=0)
    other.load_state_dict(state)
    assert all(torch.equal(a.active, b.active) for a, b in zip(method.groups, other.groups, strict=True))

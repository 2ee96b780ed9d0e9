"""Structured training: what growth finds, on a small transformer with gradients made by hand and by backward."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from small_runs import small_config
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from repro.counting.schedule import UpdateSchedule
from repro.methods.weights.s2vite import S2ViTE
from repro.methods.weights.ssp import SSP
from repro.methods.weights.units import OutputProbe, Slice, UnitGroup
from repro.models.activation_checkpointing import checkpoint_activations
from repro.models.backbone import build_model

SCHEDULE = UpdateSchedule(interval=2, end=41, total=50)


def model() -> nn.Module:
    return build_model(small_config().model, 0.0, seed=3)


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


def test_fresh_units_find_neurons_that_were_never_active() -> None:
    net = model()
    method = part(net, "fresh")
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


@pytest.mark.parametrize("growth", ["fresh", "as_released"])
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


def test_an_update_that_listens_to_fresh_units_computes_the_same_and_sees_what_each_would_gain() -> None:
    """The gradient of a closed unit's outgoing weights, against finite differences in float64."""
    net = model().double().eval()
    method = part(net, "fresh")
    images, labels = batch(0)
    images = images.double()
    before = nn.functional.cross_entropy(net(images), labels).detach()
    method.before_update(2)
    group = neurons(method)[0]
    loss = nn.functional.cross_entropy(net(images), labels)
    torch.testing.assert_close(loss, before)
    loss.backward()
    fc2 = group.outgoing.parameter
    assert fc2.grad is not None
    unit = int((~group.active).nonzero()[0])
    step, differences = 1e-6, []
    with torch.no_grad():
        for output in range(fc2.shape[0]):
            fc2[output, unit] += step
            differences.append((float(nn.functional.cross_entropy(net(images), labels)) - float(before)) / step)
            fc2[output, unit] -= step
    _, grow_score = method.unit_scores(group)
    assert float(grow_score[unit]) == pytest.approx(sum(abs(value) for value in differences), rel=1e-3)
    assert (grow_score > 0).all()
    assert fc2.grad[:, unit].tolist() == pytest.approx(differences, rel=1e-2, abs=1e-7)


def test_a_grown_unit_begins_with_a_drawn_way_in_and_a_closed_way_out() -> None:
    """So that growing changes nothing of what the network computes; a unit taken back keeps what it had."""
    net = model()
    method = part(net, "fresh", update_fraction=1.0)
    train_once(net, method, 1)
    old = {group.name: group.active.clone() for group in method.groups}
    train_once(net, method, 2)
    grown_ones = 0
    for group in method.groups:
        grown = group.active & ~old[group.name]
        grown_ones += int(grown.sum())
        assert not group.outgoing.read(grown).any()
        assert group.incoming[0].read(grown).ne(0).all()
        assert group.outgoing.read(group.active & old[group.name]).ne(0).all()
    assert grown_ones > 10
    assert grown_ones == method.exchanged


def test_fresh_draws_are_those_of_the_seed_and_spread_as_the_active_weights() -> None:
    drawn = []
    for seed in (0, 0, 1):
        net = model()
        method = part(net, "fresh", seed=seed)
        method.before_update(2)
        group = neurons(method)[0]
        weight = group.incoming[0]
        assert float(weight.read(~group.active).std()) == pytest.approx(float(weight.read(group.active).std()), rel=0.1)
        drawn.append(weight.read(~group.active))
        method.before_update(4)
        assert not torch.equal(weight.read(~group.active), drawn[-1]), "another draw for another update"
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_taylor_score_of_a_head_by_hand() -> None:
    reader = nn.Linear(4, 1, bias=False)
    reader.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    group = UnitGroup(
        name="blocks.0.attn",
        kind="heads",
        reader=reader,
        incoming=(),
        outgoing=Slice(reader.weight, 1, torch.arange(4).view(2, 2)),
        owns_outgoing=False,
        active=torch.ones(2, dtype=torch.bool),
    )
    probe = OutputProbe(group)
    # Two images of two tokens; the gradients are 1, 2 for the first head and 3, 4 for the second.
    images = [[[1.0, 1.0, 0.0, -1.0], [-2.0, 0.0, 1.0, 0.0]], [[0.0, -2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]]
    for micro_batch in (1, 2):
        outputs = torch.tensor(images, requires_grad=True)
        reader(outputs).sum().backward()
        # g * x summed over tokens and width: image 1: 1 + 2 - 2 = 1 and -4 + 3 = -1; image 2: -4 and 3 + 4 = 7.
        assert probe.taylor.tolist() == [5 * micro_batch, 8 * micro_batch]
        # Four tokens, |1| + |2| and |3| + |4| each.
        assert probe.gradient_l1.tolist() == [12 * micro_batch, 28 * micro_batch]
    probe.close()


def test_probes_release_the_outputs_of_checkpointed_blocks() -> None:
    """The forward pass and the recomputation both call the probe, but only one of the two outputs is scored."""
    scores = []
    for checkpointed in (False, True):
        net = model()
        method = SSP(net, sparsity=0.5, heads_density=0.7, neurons_density=0.5, scoring_batches=2, seed=0)
        if checkpointed:
            checkpoint_activations(net)
        probes = [OutputProbe(group) for group in method.groups]
        outputs: list[StorageWeakRef] = []
        note = partial(lambda kept, _, inputs: kept.append(StorageWeakRef(inputs[0].untyped_storage())), outputs)
        for probe in probes:
            probe.group.reader.register_forward_pre_hook(note)
        for number in range(2):
            images, labels = batch(number)
            nn.functional.cross_entropy(net(images), labels).backward()
        assert len(outputs) == 2 * len(probes) * (1 + checkpointed)
        assert all(output.expired() for output in outputs)
        scores.append([probe.taylor for probe in probes])
    assert all(map(torch.equal, *scores))


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

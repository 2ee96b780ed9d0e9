"""Which heads and neurons leave and come, worked out by hand: what readers hear is given, not computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repro.counting.geometry import ViT
from repro.counting.schedule import UpdateSchedule
from repro.methods.weights.s2vite import S2ViTE
from repro.methods.weights.ssp import SSP
from repro.models.backbone import build_model

NO, YES = False, True


def vit(depth: int, mlp_ratio: int = 2) -> Any:
    """Blocks of four heads of width 1 and 4 * `mlp_ratio` neurons, with readers that give heads back as they are."""
    geometry = ViT(
        architecture="vit",
        **{"embed_dim": 4, "depth": depth, "num_heads": 4, "mlp_ratio": mlp_ratio},
        **{"patch_size": 4, "image_size": 8, "in_chans": 1, "num_classes": 2},
    )
    net: Any = build_model(geometry, 0.0, seed=3)
    for block in net.blocks:
        block.attn.proj.weight.data = torch.eye(4)
    return net


def readers(net: Any) -> list[nn.Linear]:
    return [reader for block in net.blocks for reader in (block.attn.proj, block.mlp.fc2)]


def watched(net: Any) -> list[int]:
    """How many watch each reader's input."""
    return [len(reader._forward_pre_hooks) for reader in readers(net)]


def hear(reader: nn.Linear, outputs: Sequence[float], gradients: Sequence[float]) -> None:
    """One image of one token: a reader that is the identity on its first four units gives `gradients` back to them."""
    given = torch.tensor(outputs, dtype=torch.float32).view(1, 1, -1).requires_grad_()
    (reader(given) * torch.tensor(gradients)).sum().backward()


def spread(sums: Sequence[float], dim: int) -> Tensor:
    """(len, 4) for dim 0, (4, len) for dim 1: rows or columns that add up to 0, their magnitudes to `sums`."""
    made = torch.tensor(sums, dtype=torch.float32).view(-1, 1) * torch.tensor([0.5, -0.5, 0.0, 0.0])
    return made if dim == 0 else made.T.contiguous()


def s2vite(net: nn.Module, **changes: object) -> S2ViTE:
    options: dict[str, object] = {
        **{"sparsity": 0.5, "heads_density": 0.75, "neurons_density": 0.5, "growth": "fresh", "decay": "as_paper"},
        **{"update_fraction": 1.0, "schedule": UpdateSchedule(interval=2, end=4, total=4), "seed": 0},
    }
    return S2ViTE(net, **{**options, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("growth", "heads", "neurons", "exchanged"),
    [
        # Heads 2 and 3 by the gradient of their output; neurons 4 and 5 by 8 + 3 and 3 + 9.
        ("as_released", [YES, NO, YES, YES], [YES, YES, NO, NO, YES, YES, NO, NO], 3),
        # Heads 1 and 3 by 5 and 4, neurons 5 and 3 by 9 and 4: gradients of the outgoing weights alone.
        ("fresh", [YES, YES, NO, YES], [YES, YES, NO, YES, NO, YES, NO, NO], 2),
    ],
)
def test_half_of_the_units_are_exchanged(growth: str, heads: list[bool], neurons: list[bool], exchanged: int) -> None:
    net = vit(depth=1)
    method = s2vite(net, growth=growth)
    attention, mlp = method.groups
    attention.active = torch.tensor([YES, YES, YES, NO])
    mlp.active = torch.tensor([YES] * 4 + [NO] * 4)
    method.before_update(2)
    block = net.blocks[0]
    block.attn.proj.weight.data = torch.eye(4)
    # Outputs times gradients: 3, 1, 2 for the active heads: 1 and 2 leave. By the gradients 0 and 1 would.
    hear(block.attn.proj, outputs=[6, 1, -1, 0], gradients=[0.5, 1, 2, -4])
    block.attn.proj.weight.grad = spread([20, 5, 1, 4], dim=1)
    # What neurons own: 1 + 9, 9 + 1, 2 + 2, 3 + 4: 2 and 3 leave. By their ways in 0 and 2 would, by their ways out
    # 1 and 2, and with biases 0 and 1.
    block.mlp.fc1.weight.data = spread([1, 9, 2, 3, 0, 0, 0, 0], dim=0)
    block.mlp.fc2.weight.data = spread([9, 1, 2, 4, 0, 0, 0, 0], dim=1)
    block.mlp.fc1.bias.data = torch.tensor([0.0, 0, 50, 50, 0, 0, 0, 0])
    block.mlp.fc1.weight.grad = spread([20, 20, 7, 1, 8, 3, 0, 0], dim=0)
    block.mlp.fc2.weight.grad = spread([20, 20, 1, 4, 3, 9, 0, 0], dim=1)
    block.mlp.fc1.bias.grad = torch.tensor([0.0, 0, 0, 0, 0, 0, 100, 100])
    method.after_step(2)
    assert attention.active.tolist() == heads
    assert mlp.active.tolist() == neurons
    assert method.exchanged == exchanged
    # Heads that leave keep their ways out; fresh ones that come (the last) begin with a closed one.
    assert block.attn.proj.weight.tolist() == torch.diag(torch.tensor([1.0, 1, 1, growth == "as_released"])).tolist()


@pytest.mark.parametrize("growth", ["as_released", "fresh"])
def test_heads_are_watched_in_an_update_that_needs_it_and_not_after(growth: str) -> None:
    net = vit(depth=2)
    method = s2vite(net, growth=growth)
    for update, during in ((1, [0, 0, 0, 0]), (2, [1, 0, 1, 0]), (3, [0, 0, 0, 0])):
        method.before_update(update)
        assert watched(net) == during
        net(torch.ones(2, 1, 8, 8)).square().sum().backward()
        method.after_step(update)
        assert watched(net) == [0, 0, 0, 0]


# Of 8 active neurons of each of two blocks at alpha 1. As in the paper 0.5 (1 + cos(pi t / 8)) at 2, 4, 6: 0.854, 0.5,
# 0.146. As released 0.005 + 0.4975 (1 + cos(pi t / 16)): 0.962, 0.854, 0.693. Rounded up, twice.
@pytest.mark.parametrize(("decay", "expected"), [("as_paper", [14, 8, 4]), ("as_released", [16, 14, 12])])
@pytest.mark.parametrize("growth", ["as_released", "fresh"])
def test_fewer_are_exchanged_as_training_goes_on(growth: str, decay: str, expected: list[int]) -> None:
    net = vit(depth=2, mlp_ratio=4)
    schedule = UpdateSchedule(interval=2, end=8, total=16)
    method = s2vite(net, growth=growth, decay=decay, heads_density=1.0, schedule=schedule)
    exchanged = []
    for update in range(1, 17):
        method.before_update(update)
        for group, block in zip(method.groups[1::2], net.blocks, strict=True):
            # Nothing that leaves comes back at once.
            block.mlp.fc1.weight.grad = spread((~group.active).float().tolist(), dim=0)
            block.mlp.fc2.weight.grad = spread((~group.active).float().tolist(), dim=1)
            block.attn.proj.weight.grad = torch.zeros(4, 4)
        method.after_step(update)
        if update in (2, 4, 6):
            exchanged.append(method.exchanged)
    assert exchanged == expected
    assert method.mask_updates == 3


def test_each_group_and_each_seed_begins_with_units_of_its_own() -> None:
    active = [group.active for seed in (0, 1) for group in s2vite(vit(2, mlp_ratio=16), seed=seed).groups[1::2]]
    assert [int(units.sum()) for units in active] == [32] * 4
    assert len({tuple(units.tolist()) for units in active}) == 4


def test_each_group_and_each_update_has_a_draw_of_its_own() -> None:
    net = vit(depth=2)
    method = s2vite(net)
    drawn = []
    for update in (2, 2, 4):
        for group, block in zip(method.groups[1::2], net.blocks, strict=True):
            group.active = torch.tensor([YES] * 4 + [NO] * 4)
            block.mlp.fc1.weight.data[:4] = torch.tensor([1.0, -1.0, 1.0, -1.0])
        method.schedule = UpdateSchedule(interval=2, end=6, total=6)
        method.before_update(update)
        drawn.append([group.incoming[0].read(~group.active) for group in method.groups[1::2]])
    assert torch.equal(drawn[0][0], drawn[1][0]), "a resumed update draws the same"
    assert not torch.equal(drawn[0][0], drawn[0][1])
    assert not torch.equal(drawn[0][0], drawn[2][0])


def test_ssp_keeps_in_each_block_what_its_batches_say_together() -> None:
    net = vit(depth=2)
    method = SSP(net, sparsity=0.6, heads_density=0.5, neurons_density=0.25, scoring_batches=2, seed=0)
    for block in net.blocks:
        block.mlp.fc2.weight.data = torch.eye(4, 8)
    # Outputs times gradients of heads, by batch: 4 0 2 3 and 1 2.5 3 0.5, together 5 2.5 5 3.5; in block 1 ten times
    # that, mirrored. Gradients alone say the opposite, and block 1 alone would have all that is kept of both.
    heads = [[[4, 0, 2, 3], [1, 2.5, -3, 0.5]], [[30, 20, 0, 40], [5, -30, 25, 10]]]
    steep = [[1, 8, 1, 8], [8, 1, 8, 1]]
    neurons = [[1, 2, 3, 9], [60, 50, 80, -40]]
    asked = []

    def backward(batches: int) -> None:
        asked.append(batches)
        assert watched(net) == [1, 1, 1, 1]
        for number in range(batches):
            for index, block in enumerate(net.blocks):
                outputs = [a / b for a, b in zip(heads[index][number], steep[index], strict=True)]
                hear(block.attn.proj, outputs, steep[index])
                # The other four neurons lead nowhere: their gradient is zero, whatever they say.
                hear(block.mlp.fc2, [*neurons[index], 99, 99, 99, 99], [1, 1, 1, 1])

    method.prepare(backward)
    assert asked == [2]
    assert watched(net) == [0, 0, 0, 0]
    assert [group.active.tolist() for group in method.groups] == [
        [YES, NO, YES, NO],
        [NO, NO, YES, YES, NO, NO, NO, NO],
        [NO, YES, NO, YES],
        [YES, NO, YES, NO, NO, NO, NO, NO],
    ]
    for group in method.groups:
        assert torch.equal(group.ever_active, group.active), "what was never trained here was never active"
        for owned in group.owned:
            assert not owned.read(~group.active).any()
    found = method.metrics()
    assert (found["heads_density"], found["neurons_density"]) == (0.5, 0.25)


def test_ssp_stops_watching_where_gradients_cannot_be_had() -> None:
    net = vit(depth=1)
    method = SSP(net, sparsity=0.6, heads_density=0.5, neurons_density=0.25, scoring_batches=2, seed=0)

    def backward(_: int) -> None:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        method.prepare(backward)
    assert watched(net) == [0, 0]

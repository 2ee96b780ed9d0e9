"""What is masked as one: sums, costs and their way back to entries, by hand and against plain loops."""

from __future__ import annotations

import pytest
import torch
from small_runs import small_config

from repro.methods.weights.groups import Blocks, Units, build_groups, entries_of
from repro.methods.weights.masks import prunable_weights
from repro.models.backbone import build_model


def vit() -> torch.nn.Module:
    return build_model(small_config().model, 0.0, 3)


def test_blocks_of_side_1_are_entries() -> None:
    group = Blocks("a", (2, 3), 1, 5.0, torch.device("cpu"))
    weight = torch.tensor([[1.0, -2.0, 3.0], [4.0, -5.0, 6.0]])
    assert (group.count, group.sizes, group.costs) == (6, 1, 5.0)
    assert group.ratios({"a": weight}).tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    assert weight[0, 1] == -2, "weights stay as they are"
    assert torch.equal(group.expand(torch.arange(6.0), "a"), torch.arange(6.0).view(2, 3))


def test_groups_of_one_cost_have_one_number() -> None:
    device = torch.device("cpu")
    weights = {"a": torch.ones(2, 2), "b": torch.ones(2, 3)}
    first, same = (Blocks("a", (2, 2), 2, 1.0, device) for _ in range(2))
    other = Blocks("b", (2, 3), 2, 0.1, device)
    assert entries_of([first, same], weights).costs == 4.0
    entries = entries_of([first, other], weights)
    assert entries.ratios.tolist() == pytest.approx([1.0, 10.0, 10.0])
    assert isinstance(entries.costs, torch.Tensor)
    assert entries.costs.dtype == torch.float64
    assert entries.costs.tolist() == pytest.approx([4.0, 0.4, 0.2])


def test_blocks_at_the_edge_are_cut_off() -> None:
    group = Blocks("a", (3, 5), 2, 1.0, torch.device("cpu"))
    assert group.count == 2 * 3
    assert isinstance(group.sizes, torch.Tensor)
    assert group.sizes.tolist() == [4, 4, 2, 2, 2, 1]
    weight = torch.arange(15.0).view(3, 5)
    assert group.total({"a": weight}).tolist() == [0 + 1 + 5 + 6, 2 + 3 + 7 + 8, 4 + 9, 10 + 11, 12 + 13, 14]
    expected = torch.tensor([[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
    assert torch.equal(group.expand(torch.arange(6), "a"), expected)


def test_blocks_of_a_convolution_are_those_of_its_product() -> None:
    group = Blocks("a", (4, 2, 3, 3), 2, 1.0, torch.device("cpu"))
    weight = torch.randn(4, 2, 3, 3)
    matrix = weight.view(4, 18)
    assert group.count == 2 * 9
    assert group.sizes == 4
    torch.testing.assert_close(group.total({"a": weight})[1], matrix[:2, 2:4].sum())
    assert group.expand(torch.arange(18), "a").shape == weight.shape


@pytest.mark.parametrize("block", ["entry", "4x4", "16x16", "neuron"])
def test_what_is_added_up_and_what_is_spread_belong_together(block: str) -> None:
    """sum_groups total(x) * v = sum_entries x * spread(v), and every entry is counted once."""
    model = vit()
    weights = {name: weight.detach() for name, weight in prunable_weights(model).items()}
    names = [name for name in weights if name.startswith("blocks.")]
    for group in build_groups(model, weights, block, dict.fromkeys(names, 1.0)):
        some = {name: torch.randn_like(weights[name]).double() for name in group.layers}
        values = torch.randn(group.count).double()
        spread = sum((some[name] * group.expand(values, name)).sum() for name in group.layers)
        torch.testing.assert_close((group.total(some) * values).sum(), spread)
        sizes = group.total({name: torch.ones_like(weights[name]) for name in group.layers})
        expected = group.sizes if isinstance(group.sizes, torch.Tensor) else torch.full((group.count,), group.sizes)
        assert torch.equal(sizes.long(), expected.long())
        assert sizes.sum() == sum(weights[name].numel() for name in group.layers)


def test_a_neuron_is_its_row_and_its_column_and_a_head_its_part_of_qkv_and_proj() -> None:
    model = vit()
    weights = {name: weight.detach() for name, weight in prunable_weights(model).items()}
    names = [name for name in weights if name.startswith("blocks.")]
    heads, neurons = build_groups(model, weights, "neuron", dict.fromkeys(names, 1.0))[:2]
    assert isinstance(heads, Units)
    assert (heads.count, neurons.count) == (3, 48)
    assert (heads.sizes, neurons.sizes) == (4 * 4 * 12, 2 * 12)
    only = torch.zeros(48)
    only[7] = 1.0
    rows, columns = (neurons.expand(only, name) for name in neurons.layers)
    assert rows.nonzero()[:, 0].unique().tolist() == [7]
    assert columns.nonzero()[:, 1].unique().tolist() == [7]
    second = torch.tensor([0.0, 1.0, 0.0])
    qkv, proj = (heads.expand(second, name) for name in heads.layers)
    assert qkv.any(1).nonzero().flatten().tolist() == [*range(4, 8), *range(16, 20), *range(28, 32)]
    assert proj.any(0).nonzero().flatten().tolist() == [4, 5, 6, 7]

"""One update of a mask, by hand and by property."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from repro.methods.weights.selection import NotANumber
from repro.methods.weights.svite import exchange


def bits(text: str) -> torch.Tensor:
    return torch.tensor([letter == "1" for letter in text])


def test_by_hand() -> None:
    weight = torch.tensor([0.1, -0.5, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0])
    grad = torch.tensor([0.0, 9.0, 9.0, 0.4, -0.9, 0.1, 0.2, 0.3])
    # Active 0-3; ceil(0.5 * 4) = 2 of least magnitude leave: 0 and 3. Of 0, 3, 4-7 the largest gradients: 4 and 3.
    assert torch.equal(exchange(bits("11110000"), weight.abs(), grad.abs(), 0.5), bits("01111000"))
    # ceil(0.3 * 4) = 2 again, ceil(0.25 * 4) = 1: 0 leaves, 4 comes.
    assert torch.equal(exchange(bits("11110000"), weight.abs(), grad.abs(), 0.3), bits("01111000"))
    assert torch.equal(exchange(bits("11110000"), weight.abs(), grad.abs(), 0.25), bits("01111000"))


def test_zero_gradients_grow_the_first_in_memory_order() -> None:
    weight = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    mask = bits("101010").view(2, 3)
    # 1.0 at place 2 leaves; among places 1, 2, 3, 5, all of gradient zero, place 1 comes.
    assert torch.equal(exchange(mask, weight.abs(), torch.zeros(2, 3), 0.3), bits("110010").view(2, 3))


def test_more_to_grow_than_is_inactive_takes_all_that_is() -> None:
    # 3 of 4 leave, and only one place was inactive: those just pruned may come back, so there is always room.
    weight, grad = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0]), torch.tensor([1.0, 5.0, 4.0, 0.0, 3.0])
    assert torch.equal(exchange(bits("11110"), weight.abs(), grad.abs(), 0.75), bits("01111"))


def test_a_dense_layer_is_left_alone_whatever_its_gradient() -> None:
    mask = torch.ones(4, dtype=torch.bool)
    assert torch.equal(exchange(mask, torch.zeros(4), torch.full((4,), float("nan")), 1.0), mask)


def test_what_is_not_a_number_is_refused() -> None:
    nan = torch.full((4,), float("nan"))
    for weight, grad in ((nan, torch.ones(4)), (torch.ones(4), nan)):
        with pytest.raises(NotANumber):
            exchange(bits("1100"), weight.abs(), grad.abs(), 0.5)


def test_units_by_hand() -> None:
    taylor = torch.tensor([0.5, 0.1, 0.0, 0.7, 0.0, 0.0])
    gain = torch.tensor([0.0, 0.2, 0.2, 0.0, 0.1, -1.0])
    # Active 0, 1, 3; ceil(0.3 * 3) = 1: unit 1 leaves; of 1, 2, 4, 5 units 1 and 2 tie: the first comes back.
    assert torch.equal(exchange(bits("110100"), taylor, gain, 0.3), bits("110100"))
    gain[2] = 0.3
    assert torch.equal(exchange(bits("110100"), taylor, gain, 0.3), bits("101100"))


@given(
    hnp.arrays(np.float32, st.integers(2, 50), elements=st.floats(-4, 4, width=16)),
    st.floats(0, 1),
    st.data(),
)
def test_properties(values: np.ndarray, fraction: float, data: st.DataObject) -> None:
    size = len(values)
    weight = torch.from_numpy(values)
    grad = torch.tensor(data.draw(st.lists(st.floats(-2, 2, width=16), min_size=size, max_size=size)))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    before = mask.clone()
    new = exchange(mask, weight.abs(), grad.abs(), fraction)
    assert torch.equal(mask, before), "the old mask is not touched"
    assert int(new.sum()) == int(mask.sum()), "density preserved"
    count = math.ceil(fraction * int(mask.sum()))
    assert int((new & ~mask).sum()) <= count
    if mask.all():
        assert torch.equal(new, mask)
    else:
        # What stays for certain: the active weights beyond the `count` least, in the order of a stable sort.
        places = mask.nonzero().flatten()
        kept = places[torch.sort(weight[places].abs(), stable=True).indices[count:]]
        assert new[kept].all()
        # Whatever came in is worth at least as much as whatever stayed out.
        out = ~new
        came = new.clone()
        came[kept] = False
        if came.any() and out.any():
            assert grad[came].abs().min() >= grad[out].abs().max()
    assert torch.equal(new, exchange(mask, weight.abs(), grad.abs(), fraction)), "the same on every rank"

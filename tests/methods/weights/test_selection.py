"""The k lowest or highest, ties by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from repro.methods.weights.selection import NotANumber, highest, lowest


def marks(*positions: int, size: int) -> torch.Tensor:
    return torch.tensor([index in positions for index in range(size)])


def test_by_hand() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0, 1.0, 0.0, 5.0])
    candidates = marks(0, 1, 2, 3, 5, size=6)
    assert torch.equal(lowest(scores, candidates, 1), marks(1, size=6))
    assert torch.equal(lowest(scores, candidates, 3), marks(1, 2, 3, size=6))
    assert torch.equal(highest(scores, candidates, 2), marks(0, 5, size=6))
    assert not lowest(scores, candidates, 0).any()
    assert torch.equal(lowest(scores, candidates, 5), candidates)


def test_all_equal_takes_the_first_in_memory_order() -> None:
    zeros = torch.zeros(2, 3)
    assert torch.equal(highest(zeros, torch.ones(2, 3, dtype=torch.bool), 2), marks(0, 1, size=6).view(2, 3))


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 3.0, np.inf])),
    st.data(),
)
def test_the_same_as_a_stable_sort(values: np.ndarray, data: st.DataObject) -> None:
    scores = torch.from_numpy(values)
    candidates = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    places = candidates.nonzero().flatten()
    count = data.draw(st.integers(0, len(places)))
    for choose, descending in ((lowest, False), (highest, True)):
        order = torch.sort(scores[places] + 0.0, stable=True, descending=descending).indices
        expected = torch.zeros_like(candidates)
        expected[places[order[:count]]] = True
        assert torch.equal(choose(scores, candidates, count), expected)


def test_ties_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0, -0.0], [1.0, 1.0, 2.0]])
    candidates = marks(0, 2, 3, 4, 5, size=6).view(2, 3)
    # 2 is above the ties, of the three 1s the first stays; from below -0, then the first two of the 1s.
    assert torch.equal(highest(scores, candidates, 2), marks(0, 5, size=6).view(2, 3))
    assert torch.equal(lowest(scores, candidates, 3), marks(0, 2, 3, size=6).view(2, 3))
    everything = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(lowest(scores, everything, 1), marks(1, size=6).view(2, 3))
    for count in (1, 3, 5):
        before = scores.clone(), candidates.clone()
        highest(scores, candidates, count)
        assert torch.equal(scores, before[0])
        assert torch.equal(candidates, before[1])


def test_a_transposed_view_is_read_row_by_row() -> None:
    scores = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]).T  # 1 1 0 and 0 1 2
    everything = torch.ones(2, 3, dtype=torch.bool)
    for candidates in (everything, torch.ones(3, 2, dtype=torch.bool).T):
        assert torch.equal(highest(scores, candidates, 3), marks(0, 1, 5, size=6).view(2, 3))
        assert torch.equal(lowest(scores, candidates, 1), marks(2, size=6).view(2, 3))


def test_half_precision_too() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        scores = torch.tensor([3.0, 1.0, 2.0], dtype=dtype)
        assert torch.equal(lowest(scores, torch.ones(3, dtype=torch.bool), 2), marks(1, 2, size=3))


def test_a_nan_among_the_candidates_is_refused_and_elsewhere_ignored() -> None:
    scores = torch.tensor([float("nan"), 1.0, 2.0])
    for choose in (lowest, highest):
        with pytest.raises(NotANumber):
            choose(scores, torch.ones(3, dtype=torch.bool), 1)
    assert torch.equal(highest(scores, marks(1, 2, size=3), 1), marks(2, size=3))


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot select 3 of 2 candidates"):
        lowest(torch.zeros(4), marks(0, 1, size=4), 3)

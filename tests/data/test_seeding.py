from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.seeding import seeded, stream_seed

PARTS = st.lists(st.integers(0, 9) | st.text("a1", max_size=2), max_size=3)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random_sample()), float(torch.rand((), dtype=torch.float64))


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert stream_seed("order", 0, 1) == 1747576171170989049


@given(PARTS, PARTS)
def test_two_names_are_two_streams(one: list[int | str], other: list[int | str]) -> None:
    assert (stream_seed(*one) == stream_seed(*other)) == (one == other)
    assert 0 <= stream_seed(*one) < 2**63


def test_a_part_that_is_no_name_is_refused() -> None:
    with pytest.raises(TypeError, match=r"not 0\.5"):
        stream_seed("order", 0.5)  # type: ignore[arg-type]


def test_a_block_draws_its_own_numbers_and_leaves_the_others_alone() -> None:
    with seeded("before"):
        draw()
        undisturbed = draw()
    with seeded("before"):
        draw()
        with seeded("image", 3):
            inside = draw()
        assert draw() == undisturbed
    with seeded("image", 3):
        assert draw() == inside
    with seeded("image", 4):
        assert not set(draw()) & set(inside)


def test_the_generators_are_put_back_after_an_error() -> None:
    with seeded("before"):
        undisturbed = draw()
    with seeded("before"):
        with pytest.raises(ZeroDivisionError), seeded("image"):
            _ = draw()[0] / 0
        assert draw() == undisturbed


def test_the_three_generators_are_not_copies_of_each_other() -> None:
    # Python's and NumPy's are the same twister: from one seed they would give the very same doubles.
    with seeded("image"):
        assert len(set(draw())) == 3
        assert random.getstate()[1][:624] != tuple(np.random.get_state()[1])  # type: ignore[index]

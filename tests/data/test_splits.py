from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.config.compose import compose
from repro.data.data_sets import split_sizes
from repro.data.splits import stratified_prefix
from repro.errors import first_few

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


def test_a_prefix_by_hand() -> None:
    # Class 0 stands at 1/8, 3/8, 5/8, 7/8 of the list, class 2 at 1/4 and 3/4.
    labels = torch.tensor([0, 0, 2, 0, 2, 0])
    assert stratified_prefix(labels, 1).tolist() == [0]
    assert stratified_prefix(labels, 2).tolist() == [0, 2]
    assert stratified_prefix(labels, 3).tolist() == [0, 1, 2]
    assert stratified_prefix(labels, 5).tolist() == [0, 1, 2, 3, 4]


@given(LABELS, st.data())
def test_a_prefix_is_stratified_and_nested(classes: list[int], data: st.DataObject) -> None:
    labels = torch.tensor(classes)
    limit = data.draw(st.integers(1, len(classes)))
    taken = stratified_prefix(labels, limit)
    assert len(set(taken.tolist())) == limit
    for label in set(classes):
        expected = limit * classes.count(label) / len(classes)
        assert abs(int((labels[taken] == label).sum()) - expected) < len(set(classes)) / 2 + 0.5
    if limit < len(classes):
        assert set(taken.tolist()) < set(stratified_prefix(labels, limit + 1).tolist())


def test_a_long_list_is_cut() -> None:
    assert first_few(["a"]) == "a"
    assert first_few(list("abcde")) == "a, b, c and 2 more"


@pytest.mark.parametrize(("name", "images"), [("digits", 360), ("shapes", 1024), ("shapes_video", 256)])
def test_configs_state_the_size_of_the_test_split(name: str, images: int) -> None:
    """The report computes intervals of accuracies from it, and it is no part of a run's record."""
    assert compose([f"data={name}"]).data.test_images == split_sizes(name)[1] == images

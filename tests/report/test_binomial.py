"""Intervals of the accuracy of one run: compared with scipy and a published example, and at the ends of the range."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest  # type: ignore[import-untyped]

from repro.config import Data
from repro.config.compose import compose
from repro.report import binomial


@given(st.integers(1, 5000), st.data())
def test_wilson_is_that_of_scipy(images: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, images))
    low, high = binomial.wilson_interval(100 * correct / images, images)
    expected = binomtest(correct, images).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


def test_newcombe_by_hand() -> None:
    """80 % and 60 % of 70 images: the ends follow from the four ends of the individual intervals."""
    low, high = binomial.newcombe_interval(80, 60, 70)
    first, second = (binomtest(count, 70).proportion_ci(0.95, method="wilson") for count in (56, 42))
    assert low == pytest.approx(20 - 100 * ((0.8 - first.low) ** 2 + (second.high - 0.6) ** 2) ** 0.5)
    assert high == pytest.approx(20 + 100 * ((first.high - 0.8) ** 2 + (0.6 - second.low) ** 2) ** 0.5)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(1, 50_000))
def test_an_interval_holds_its_value_and_stays_in_range(accuracy: float, reference: float, images: int) -> None:
    low, high = binomial.wilson_interval(accuracy, images)
    assert 0 <= low <= accuracy + 1e-9
    assert accuracy - 1e-9 <= high <= 100
    low, high = binomial.newcombe_interval(accuracy, reference, images)
    assert low - 1e-9 <= accuracy - reference <= high + 1e-9


def data_of(*overrides: str) -> Data:
    return compose([*overrides]).data


def test_images_are_those_of_the_split_or_of_its_limit() -> None:
    assert binomial.n_test_images(data_of("data=digits")) == 360
    assert binomial.n_test_images(data_of("data=digits", "data.limit_test=100")) == 100
    assert binomial.n_test_images(data_of("scale=paper", "data.root=x")) == 50_000
    assert binomial.n_test_images(data_of("data=imagefolder", "data.root=x")) is None
    assert "test_images" not in data_of("data=digits").model_dump(), "no part of a run's signature"

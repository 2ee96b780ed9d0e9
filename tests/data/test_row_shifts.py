"""Rows and columns that are shifted by themselves, against Pillow's transform of the whole image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repro.data import row_shifts

FILL = (124, 116, 104)
# What is given, and the coefficients of the same transform.
SHIFTS: dict[str, tuple[Callable[..., Image.Image], Callable[[float], tuple[float, ...]]]] = {
    "shear x": (row_shifts.shear_x, lambda by: (1, by, 0, 0, 1, 0)),
    "shear y": (row_shifts.shear_y, lambda by: (1, 0, 0, by, 1, 0)),
    "translate x": (row_shifts.translate_x, lambda by: (1, 0, by, 0, 1, 0)),
    "translate y": (row_shifts.translate_y, lambda by: (1, 0, 0, 0, 1, by)),
}


def pillows(image: Image.Image, coefficients: tuple[float, ...]) -> np.ndarray:
    moved = image.transform(
        image.size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BICUBIC, fillcolor=FILL
    )
    return np.asarray(moved).astype(int)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", SHIFTS)
@given(
    by=st.one_of(st.floats(-0.4, 0.4), st.floats(-120, 120), st.integers(-9, 9).map(float)),
    width=st.integers(2, 50),
    height=st.integers(2, 50),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_a_shift_is_pillows(name: str, by: float, width: int, height: int, seed: int) -> None:
    ours, coefficients = SHIFTS[name]
    image = noise(width, height, seed)
    difference = np.abs(np.asarray(ours(image, by, FILL)).astype(int) - pillows(image, coefficients(by)))
    # Ours counts in float32, Pillow's in float64, and both cut off what is behind the point.
    assert difference.max() <= 1


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("by", [0.271828, -0.141421, 0.057721, 33.414214, -100.732051])
def test_nearly_every_value_is_the_same(name: str, by: float) -> None:
    ours, coefficients = SHIFTS[name]
    image = noise(224, 224)
    assert (np.asarray(ours(image, by, FILL)) != pillows(image, coefficients(by))).mean() < 2e-4


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("by", [0.0, 3.0, -7.0, 0.25])
def test_a_flat_surface_and_whole_pixels_are_exact(name: str, by: float) -> None:
    ours, coefficients = SHIFTS[name]
    for image in (Image.new("RGB", (40, 30), (201, 7, 99)), noise(40, 30)):
        if image.getpixel((0, 0)) == (201, 7, 99) or by.is_integer():
            assert np.array_equal(np.asarray(ours(image, by, FILL)), pillows(image, coefficients(by)))

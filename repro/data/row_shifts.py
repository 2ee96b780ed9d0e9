"""Shears and translations as shifts of rows or columns: Pillow's bicubic transform, pixel for pixel, in less time.

Pillow interpolates each pixel over its 4 x 4 neighbours. Where rows (or columns) are only moved along themselves, three
of those four rows have no weight, and all pixels of a row share their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Shifts = NDArray[np.floating]
ROWS = 32  # at a time: what they need stays in a core's cache


def shear_x(image: Image.Image, factor: float, fill: Sequence[int]) -> Image.Image:
    """`image.transform(size, AFFINE, (1, factor, 0, 0, 1, 0), BICUBIC, fillcolor=fill)` of an RGB image."""
    return Image.fromarray(_shifted(np.asarray(image), factor, 0.0, fill))


def shear_y(image: Image.Image, factor: float, fill: Sequence[int]) -> Image.Image:
    """The same with (1, 0, 0, factor, 1, 0)."""
    return _on_its_side(image, lambda pixels: _shifted(pixels, factor, 0.0, fill))


def translate_x(image: Image.Image, pixels: float, fill: Sequence[int]) -> Image.Image:
    """The same with (1, 0, pixels, 0, 1, 0)."""
    return Image.fromarray(_shifted(np.asarray(image), 0.0, pixels, fill))


def translate_y(image: Image.Image, pixels: float, fill: Sequence[int]) -> Image.Image:
    """The same with (1, 0, 0, 0, 1, pixels)."""
    return _on_its_side(image, lambda turned: _shifted(turned, 0.0, pixels, fill))


def _on_its_side(image: Image.Image, change: Callable[[Pixels], Pixels]) -> Image.Image:
    turned = image.transpose(Image.Transpose.TRANSPOSE)
    return Image.fromarray(change(np.asarray(turned))).transpose(Image.Transpose.TRANSPOSE)


def _shifted(pixels: Pixels, factor: float, offset: float, fill: Sequence[int]) -> Pixels:
    """Row y of (height, width, 3) moved left by `factor * (y + 1/2) + offset` pixels."""
    height, width = pixels.shape[:2]
    shifts: Shifts = factor * (np.arange(height) + 0.5) + offset
    # Pillow reads at the centre of an output pixel, in Pillow's own order of operations: the last digit decides on
    # which side of the border a pixel lies.
    first: Shifts = 0.5 + shifts
    last: Shifts = (width - 0.5) + shifts
    whole = np.floor(first - 0.5)
    share = (first - 0.5) - whole
    # The cubic of Pillow's transform (Keys, a = -1), as weights of what the neighbours differ by from the pixel itself:
    # so a flat surface stays what it is.
    weights = np.stack(
        [-share + share * (2 - share) * share, share + share * (1 - share) * share, share * share * (share - 1)]
    )
    before, after, beyond = torch.from_numpy(weights).float()[:, :, None]
    windows = torch.from_numpy(_windows(pixels, whole.astype(np.int64)))
    result = torch.empty((height, 3 * width), dtype=torch.uint8)
    for start in range(0, height, ROWS):
        rows = slice(start, start + ROWS)
        taps = windows[rows].float()
        here = taps[:, 3 : 3 + 3 * width]
        value = torch.addcmul(here, taps[:, : 3 * width] - here, before[rows])
        value.addcmul_(taps[:, 6 : 6 + 3 * width] - here, after[rows])
        value.addcmul_(taps[:, 9:] - here, beyond[rows])
        result[rows] = value.clamp_(0, 255)  # cut off, as Pillow does, not rounded
    found = result.numpy()
    _fill_outside(found, first, last, width, fill)
    return found.reshape(height, width, 3)


def _fill_outside(found: Pixels, first: Shifts, last: Shifts, width: int, fill: Sequence[int]) -> None:
    """Give `fill` to what is read from outside: at that end of a row whose first or last place is beyond the border."""
    colour = np.tile(np.array(fill, np.uint8), width)
    # The number of places below 0, or from `width` on: they are one pixel apart.
    left = np.clip(np.ceil(-first), 0, width).astype(np.int64)
    right = np.clip(np.floor(last - width) + 1, 0, width).astype(np.int64)
    for rows, count in _runs(left):
        found[rows, : 3 * count] = colour[: 3 * count]
    for rows, count in _runs(right):
        found[rows, 3 * (width - count) :] = colour[: 3 * count]


def _windows(pixels: Pixels, whole: NDArray[np.int64]) -> Pixels:
    """Columns `whole - 1` to `whole + width + 1` of each row, (height, 3 * (width + 3)).

    Those up to three beyond a border repeat it; what is further away is never seen, and left as it comes.
    """
    height, width = pixels.shape[:2]
    bordered = np.empty((height, width + 6, 3), np.uint8)
    bordered[:, 3:-3] = pixels
    bordered[:, :3], bordered[:, -3:] = pixels[:, :1], pixels[:, -1:]
    flat = bordered.reshape(height, -1)
    found = np.zeros((height, 3 * (width + 3)), np.uint8)
    for rows, start in _runs(whole - 1):
        left, right = max(start, -3), min(start + width + 3, width + 3)
        if left < right:
            found[rows, 3 * (left - start) : 3 * (right - start)] = flat[rows, 3 * (left + 3) : 3 * (right + 3)]
    return found


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[slice, int]]:
    """Neighbours that are equal, as one: where they are and what they are. A shear moves several rows alike."""
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for start, stop in pairwise(starts):
        yield slice(start, stop), int(values[start])

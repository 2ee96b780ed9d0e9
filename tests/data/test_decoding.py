"""Decoding image files: pixel types with a known range are scaled to 8 bits, others are refused."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repro.data.decoding import decode
from repro.errors import UnreadableError, UserError

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def encoded(pixels: np.ndarray, format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_to_eight_bits(format: str) -> None:
    image = decode(encoded((RAMP * 65535).round().astype(np.uint16), format), "ramp")
    assert np.abs(np.asarray(image) - RAMP * 255).max() <= 0.51
    assert np.asarray(image.convert("RGB")).tolist() == np.stack([np.asarray(image)] * 3, axis=2).tolist()
    assert (np.asarray(image).min(), np.asarray(image).max()) == (0, 255)


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "integers"), (np.float32, "floats")])
def test_pixels_of_unknown_range_are_refused(dtype: type, kind: str) -> None:
    with pytest.raises(UserError) as caught:
        decode(encoded((RAMP * 1000).astype(dtype), "TIFF"), "scan.tif")
    assert str(caught.value) == (
        f"scan.tif: 32-bit {kind} have no known range; convert all such images to 8 bits per channel, or to 16-bit grey"
    )
    assert not isinstance(caught.value, UnreadableError)  # no other image replaces it


def test_eight_bit_images_keep_their_mode_and_pixels() -> None:
    grey = (RAMP * 255).round().astype(np.uint8)
    for pixels, mode in ((grey, "L"), (np.stack([grey] * 3, axis=2), "RGB"), (np.stack([grey] * 4, axis=2), "RGBA")):
        image = decode(encoded(pixels, "PNG"), "ramp")
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), pixels)


HEADS = [encoded((RAMP * 255).astype(np.uint8), format) for format in ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP")]


@given(st.sampled_from([b"", *HEADS]), st.integers(0, 400), st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_images_or_one_line(head: bytes, keep: int, noise: bytes) -> None:
    data = head[:keep] + noise + head[keep + len(noise) :]
    try:
        outcome = decode(data, "noise.jpg").convert("RGB").mode
    except UserError as error:
        outcome = str(error)
    assert re.fullmatch(r"RGB|noise\.jpg: (cannot be decoded as an image \(.+\)|32-bit pixels .*)", outcome)

"""From the bytes of an image file to pixels, by Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from repro.errors import UserError


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Raise `UserError` that names the file for what Pillow's decoders raise, and for a file that cannot be read."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = type(error).__name__ if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{name}: cannot be decoded as an image ({reason}); replace the file or take it away") from None


def decoded(data: bytes, name: str) -> Image.Image:
    """The image as it is stored, in its own mode. Raises `UserError` that names the file where it is none."""
    with decoding(name), Image.open(io.BytesIO(data)) as image:
        image.load()
    return image


def decoded_rgb(data: bytes, name: str) -> Image.Image:
    """The image, RGB. Raises `UserError` as `decoded` does."""
    with decoding(name), Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")

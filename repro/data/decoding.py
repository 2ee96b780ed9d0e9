"""From the bytes of an image file to pixels, by Pillow or by torchvision's JPEG decoder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from repro.errors import UserError


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Raise `UserError` that names the file for what Pillow's decoders raise, and for a file that cannot be read."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = type(error).__name__ if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{name}: cannot be decoded as an image ({reason}); replace the file or take it away") from None


def by_pillow(data: bytes, name: str) -> Image.Image:
    """The image, RGB. Raises `UserError` that names the file where it cannot be decoded."""
    with decoding(name), Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def by_torchvision(data: bytes, name: str) -> Tensor:
    """The image, RGB: uint8 (3, height, width), channels last in memory. Raises `UserError` as `by_pillow` does.

    Pillow reads the header, and decodes whatever is no JPEG in colour or grey (a PNG by another name, CMYK), or is one
    that torchvision refuses: so what is an image, and what its colours are, does not depend on the decoder.
    """
    with decoding(name), Image.open(io.BytesIO(data)) as image:
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            try:
                return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
            except RuntimeError:
                pass  # cut short, or broken: Pillow says what is wrong with it
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

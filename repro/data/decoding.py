"""Decoding image files with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from repro.errors import UnreadableError, UserError
from repro.interruption import Interrupted

_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # whose 16-bit images may have Pillow's mode I, of 32 bits


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image file in its own mode; 16-bit grey is scaled to 8 bits.

    Raises `UnreadableError`, with `name`, if it cannot be decoded, and `UserError` for 32-bit pixels, whose range is
    unknown. (Pillow converts both to RGB by clipping at 255, so they would become white or black.)
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            image = _sixteen_to_eight_bits(file)
    except Interrupted:
        raise
    except Exception as error:  # Pillow's decoders raise errors of nearly every type for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "no image format" if data else "the file is empty"
        raise UnreadableError(f"{name}: cannot be decoded as an image ({reason})") from None
    if image.mode in ("I", "F"):
        raise UserError(f"{name}: 32-bit pixels (mode {image.mode}) have no known range; convert the images to 8 bits")
    return image


def _sixteen_to_eight_bits(image: ImageFile) -> Image.Image:
    if not image.mode.startswith("I;16") and (image.mode != "I" or image.format not in _SIXTEEN_BIT_FORMATS):
        return image
    levels = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((levels * 255 + 65535 // 2) // 65535).astype(np.uint8))

"""Decodes image files with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from repro.data.folder_files import FolderFiles
from repro.data.shards import Shards
from repro.errors import UnreadableError, UserError
from repro.interruption import Interrupted

_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # Pillow may open 16-bit images of these formats in mode I, which has 32 bits


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image file without converting its mode, except that 16-bit grey is scaled to 8 bits.

    Pillow would convert 16-bit and 32-bit pixels to RGB by clipping at 255, so that images become white or black.
    `name` is part of error messages. Raises `UnreadableError` if the file cannot be decoded, and `UserError` for 32-bit
    pixels, whose range is unknown.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            image = _sixteen_to_eight_bits(file)
    except Interrupted:
        raise
    except Exception as error:  # Pillow's decoders raise exceptions of nearly every class for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "no image format" if data else "the file is empty"
        raise UnreadableError(f"{name}: cannot be decoded as an image ({reason})") from None
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise UserError(
            f"{name}: 32-bit {kind} have no known range; convert all such images to 8 bits per channel, or to "
            "16-bit grey"
        )
    return image


def why_unreadable(files: FolderFiles | Shards, row: int) -> str:
    """Return why an image cannot be read or decoded; empty if it can."""
    try:
        decode(files.read(row), files.name(row))
    except UserError as error:
        return str(error)
    return ""


def _sixteen_to_eight_bits(image: ImageFile) -> Image.Image:
    if not image.mode.startswith("I;16") and (image.mode != "I" or image.format not in _SIXTEEN_BIT_FORMATS):
        return image
    levels = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((levels * 255 + 65535 // 2) // 65535).astype(np.uint8))

"""Training views of image files: what timm's transform draws, computed in bytes.

Against timm's: only the crop is taken out of Pillow's image, torch resizes it (its kernel for bytes is vectorised),
rows and columns are shifted by `row_shifts`, and nothing is made a float before the batch is on its device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.nn import functional

from repro.data.decoding import decoded
from repro.data.unfinished import Normalisation, Patch, View

# torch's names of what timm may ask for.
_MODES = {"BILINEAR": "bilinear", "BICUBIC": "bicubic"}


class Views:
    """timm's training transform of an image file: the same draws in the same order, pixels as near as resampling is.

    `crop`, `middle` and `erasing` are timm's own; `middle` takes and returns an RGB image. Everything random comes from
    the global generators of Python, NumPy and torch, as in timm's.
    """

    def __init__(
        self,
        crop: RandomResizedCropAndInterpolation,
        middle: Sequence[Callable[[Image.Image], Image.Image]],
        erasing: RandomErasing | None,
        normalisation: Normalisation,
    ) -> None:
        self.crop, self.middle, self.erasing = crop, tuple(middle), erasing
        self.normalisation = normalisation

    def __call__(self, data: bytes, name: str) -> View:
        """One view of the image that these bytes are; `name` is what errors call it."""
        image = Image.fromarray(self.cropped(decoded(data, name)).numpy())
        for transform in self.middle:
            image = transform(image)
        pixels = torch.from_numpy(np.array(image))
        return View(pixels, self._patches(pixels), self.normalisation)

    def cropped(self, image: Image.Image) -> Tensor:
        """The random resized crop of an image of any mode: RGB, uint8 (height, width, 3)."""
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        chosen = self.crop.interpolation
        if isinstance(chosen, tuple | list):
            chosen = random.choice(chosen)
        # Cut before it is resized, as in timm's: no pixel beyond the crop has a part in it. And before anything else is
        # done to it: what is not seen costs nothing.
        part = image.crop((left, top, left + width, top + height))
        pixels = torch.from_numpy(np.array(part if part.mode == "RGB" else part.convert("RGB")))
        # As a batch of one that has its channels last, it comes back with its channels last.
        batch = pixels.view(1, *pixels.shape).permute(0, 3, 1, 2)
        resized = functional.interpolate(batch, self.crop.size, mode=_MODES[chosen.name], antialias=True)
        return resized[0].permute(1, 2, 0).contiguous()

    def _patches(self, pixels: Tensor) -> tuple[Patch, ...]:
        if self.erasing is None:
            return ()
        height, width, channels = pixels.shape
        drawn = _Drawn((channels, height, width))
        self.erasing(drawn)
        return tuple(drawn.patches)


class _Drawn:
    """What timm's random erasing takes for a normalised image: keeps what is written into it."""

    dtype = torch.float32

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.patches: list[Patch] = []

    def size(self) -> tuple[int, int, int]:
        return self.shape

    def __setitem__(self, where: tuple[slice, slice, slice], noise: Tensor) -> None:
        self.patches.append(Patch(where[1].start, where[2].start, noise))

"""timm's training transform, computed in bytes: the same random draws, in less time.

Only the crop leaves Pillow's image, torch resizes it with its vectorised kernel for bytes, and no pixel becomes a float
before the batch is on its device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.nn import functional

from repro.data.uint8_batch import ErasedBox, Normalisation, Uint8Image

_TORCH_MODES = {"BILINEAR": "bilinear", "BICUBIC": "bicubic"}  # by Pillow's name


@dataclass(frozen=True, eq=False)
class FastTransform:
    """timm's training transform with the same draws in the same order; pixels differ as far as resampling does.

    `crop`, `augmentations` and `erasing` are timm's own; an augmentation takes and returns an RGB image. Everything
    random comes from the global generators of Python, NumPy and torch, as in timm's transform.
    """

    crop: RandomResizedCropAndInterpolation
    augmentations: Sequence[Callable[[Image.Image], Image.Image]]
    erasing: RandomErasing | None
    normalisation: Normalisation

    def __call__(self, image: Image.Image) -> Uint8Image:
        """Augment an image of any mode."""
        image = Image.fromarray(self.random_crop(image).numpy())
        for augment in self.augmentations:
            image = augment(image)
        return self.random_erase(torch.from_numpy(np.array(image)))

    def random_crop(self, image: Image.Image) -> Tensor:
        """Take the random resized crop of an image of any mode: RGB, uint8 (height, width, 3)."""
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        interpolation = self.crop.interpolation
        if isinstance(interpolation, tuple | list):
            interpolation = random.choice(interpolation)
        # Cropped before it is resized, as in timm: no pixel outside the crop contributes. And before its mode is
        # converted, because the rest of the image need not be.
        part = image.crop((left, top, left + width, top + height))
        pixels = torch.from_numpy(np.array(part if part.mode == "RGB" else part.convert("RGB")))
        # A batch of one with its channels last is returned with its channels last.
        batch = pixels.view(1, *pixels.shape).permute(0, 3, 1, 2)
        resized = functional.interpolate(batch, self.crop.size, mode=_TORCH_MODES[interpolation.name], antialias=True)
        return resized[0].permute(1, 2, 0).contiguous()

    def random_erase(self, pixels: Tensor) -> Uint8Image:
        """Draw what random erasing does to an image, uint8 (height, width, 3)."""
        height, width, channels = pixels.shape
        recorder = _BoxRecorder((channels, height, width))
        if self.erasing is not None:
            self.erasing(recorder)
        return Uint8Image(pixels, tuple(recorder.boxes), self.normalisation)


class _BoxRecorder:
    """Takes the place of a normalised image in timm's random erasing, and records what is written into it."""

    dtype = torch.float32

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.boxes: list[ErasedBox] = []

    def size(self) -> tuple[int, int, int]:
        return self.shape

    def __setitem__(self, where: tuple[slice, slice, slice], noise: Tensor) -> None:
        self.boxes.append(ErasedBox(where[1].start, where[2].start, noise))

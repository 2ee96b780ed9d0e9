"""timm's training transform in uint8: the same random draws, in less time.

Only the crop is taken out of Pillow's image, torch's vectorised uint8 kernel resizes it, and pixels are converted to
floats only when the batch is on its device.
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

_TORCH_MODES = {"BILINEAR": "bilinear", "BICUBIC": "bicubic"}  # torch's names by Pillow's


@dataclass(frozen=True, eq=False)
class FastTransform:
    """timm's training transform, with the same random draws in the same order. Pixels differ only by the resampling.

    `crop`, `augmentations` and `erasing` are timm's own. An augmentation takes and returns an RGB image. All random
    numbers come from the global generators of Python, NumPy and torch, as in timm's transform.
    """

    crop: RandomResizedCropAndInterpolation
    augmentations: Sequence[Callable[[Image.Image], Image.Image]]
    erasing: RandomErasing | None
    normalisation: Normalisation

    def __call__(self, image: Image.Image) -> Uint8Image:
        """Augment an image of any mode, without normalising and erasing it."""
        image = Image.fromarray(self.random_crop(image).numpy())
        for augment in self.augmentations:
            image = augment(image)
        return self.random_erase(torch.from_numpy(np.array(image)))

    def random_crop(self, image: Image.Image) -> Tensor:
        """Return a random resized crop of an image of any mode, as RGB, uint8 (height, width, 3)."""
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        interpolation = self.crop.interpolation
        if isinstance(interpolation, tuple | list):
            interpolation = random.choice(interpolation)
        # As in timm, the image is cropped before it is resized, so that no pixel outside the crop contributes. Cropping
        # before the mode is converted saves the conversion of the rest.
        part = image.crop((left, top, left + width, top + height))
        pixels = torch.from_numpy(np.array(part if part.mode == "RGB" else part.convert("RGB")))
        # `interpolate` keeps the memory format of a channels-last batch, so the permutation back is free.
        batch = pixels.view(1, *pixels.shape).permute(0, 3, 1, 2)
        resized = functional.interpolate(batch, self.crop.size, mode=_TORCH_MODES[interpolation.name], antialias=True)
        return resized[0].permute(1, 2, 0).contiguous()

    def random_erase(self, pixels: Tensor) -> Uint8Image:
        """Draw which boxes random erasing replaces in an image, uint8 (height, width, 3)."""
        height, width, channels = pixels.shape
        recorder = _BoxRecorder((channels, height, width))
        if self.erasing is not None:
            self.erasing(recorder)
        return Uint8Image(pixels, tuple(recorder.boxes), self.normalisation)


class _BoxRecorder:
    """A stand-in for a normalised image in timm's random erasing, which records what is written into it."""

    dtype = torch.float32

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.boxes: list[ErasedBox] = []

    def size(self) -> tuple[int, int, int]:
        return self.shape

    def __setitem__(self, where: tuple[slice, slice, slice], noise: Tensor) -> None:
        self.boxes.append(ErasedBox(where[1].start, where[2].start, noise))

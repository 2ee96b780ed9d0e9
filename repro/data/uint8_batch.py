"""Batches of augmented uint8 images, which are converted to floats on the device that trains on them.

An image leaves its worker as uint8, with a quarter of the bytes of float32. The device normalises the batch and inserts
the noise of random erasing. All random numbers are drawn in the worker, from the stream of the image's position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ErasedBox:
    """A rectangle of an image and the noise that replaces it after normalisation, float32 (3, height, width)."""

    top: int
    left: int
    noise: Tensor


@dataclass(frozen=True, eq=False)
class Uint8Image:
    """An augmented image, uint8 (height, width, 3), before normalisation and erasing."""

    pixels: Tensor
    erased: tuple[ErasedBox, ...]
    normalisation: Normalisation


@dataclass(frozen=True, eq=False)
class Uint8Batch:
    """The images of a batch, uint8 (images, height, width, 3), with the erased boxes of all of them.

    The noise of all boxes is one tensor, because each tensor that leaves a worker takes a file descriptor.
    """

    pixels: Tensor
    boxes: tuple[tuple[int, int, int, int, int], ...]  # (image, top, left, height, width)
    noise: Tensor  # the concatenated values of all boxes, float32
    normalisation: Normalisation

    @classmethod
    def of(cls, images: Sequence[Uint8Image], stack: Callable[[list[Tensor]], Any] = torch.stack) -> Uint8Batch:
        """Build a batch of images; `stack` stacks their pixels."""
        erased = [(number, box) for number, image in enumerate(images) for box in image.erased]
        boxes = tuple((number, box.top, box.left, *box.noise.shape[1:]) for number, box in erased)
        noise = torch.cat([torch.empty(0), *(box.noise.flatten() for _, box in erased)])
        return cls(stack([image.pixels for image in images]), boxes, noise, images[0].normalisation)

    def pin_memory(self) -> Uint8Batch:
        """Return the batch in pinned memory. torch's `DataLoader` calls this."""
        return replace(self, pixels=self.pixels.pin_memory(), noise=self.noise.pin_memory())

    def to_float(self, device: torch.device) -> Tensor:
        """Normalise and erase on `device`; return float32 (images, 3, height, width)."""
        pixels = self.pixels.to(device, non_blocking=True)
        noise = self.noise.to(device, non_blocking=True)
        count, height, width, channels = pixels.shape
        images = torch.empty((count, channels, height, width), device=device)
        mean, std = _byte_statistics(self.normalisation, device)
        # A GPU converts the whole batch at once. A CPU converts one image at a time, which fits in its cache.
        size = 1 if device.type == "cpu" else count
        for source, target in zip(pixels.split(size), images.split(size), strict=True):
            target.copy_(source.permute(0, 3, 1, 2))
            target.sub_(mean).div_(std)
        start = 0
        for image, top, left, box_height, box_width in self.boxes:
            values = noise[start : start + channels * box_height * box_width]
            box = values.view(channels, box_height, box_width)
            images[image, :, top : top + box_height, left : left + box_width] = box
            start += len(values)
        return images


@lru_cache
def _byte_statistics(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation for pixels in [0, 255], cached on the device to avoid a blocking copy."""
    mean, std = (255 * torch.tensor(values).view(-1, 1, 1) for values in (normalisation.mean, normalisation.std))
    return mean.to(device), std.to(device)

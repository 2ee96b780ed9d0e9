"""Views of images in bytes, and their batch: finished on the device that trains on it.

A view leaves its worker as uint8, a quarter of what it is as float32. It is normalised, and what random erasing has
drawn is put in, where the batch is used. Everything is drawn in the worker, from the stream of the view's position.
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
    """Mean and standard deviation of each channel, of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Patch:
    """A rectangle of an image and what stands there instead, after normalisation: float32 (3, height, width)."""

    top: int
    left: int
    noise: Tensor


@dataclass(frozen=True, eq=False)
class View:
    """A view of an image, uint8 (height, width, 3), with what is still to be done to it."""

    pixels: Tensor
    patches: tuple[Patch, ...]
    normalisation: Normalisation


@dataclass(frozen=True, eq=False)
class UnfinishedBatch:
    """Views of a batch on their way to the device: uint8 (images, height, width, 3), and all their patches in one.

    `places` are (image, top, left, height, width) of each patch, `noise` what stands in them, one after the other.
    (As tensors of their own they would each take a file descriptor on their way out of a worker.)
    """

    pixels: Tensor
    places: tuple[tuple[int, int, int, int, int], ...]
    noise: Tensor
    normalisation: Normalisation

    @classmethod
    def of(cls, views: Sequence[View], stack: Callable[[list[Tensor]], Any] = torch.stack) -> UnfinishedBatch:
        """The views in their order."""
        found = [(number, patch) for number, view in enumerate(views) for patch in view.patches]
        places = tuple((number, patch.top, patch.left, *patch.noise.shape[1:]) for number, patch in found)
        noise = torch.cat([torch.empty(0), *(patch.noise.flatten() for _, patch in found)])
        return cls(stack([view.pixels for view in views]), places, noise, views[0].normalisation)

    def pin_memory(self) -> UnfinishedBatch:
        """The same, where a GPU can fetch it while others work; what torch's loader asks for."""
        return replace(self, pixels=self.pixels.pin_memory(), noise=self.noise.pin_memory())

    def finished(self, device: torch.device) -> Tensor:
        """Normalised and erased: float32 (images, 3, height, width) on `device`."""
        pixels = self.pixels.to(device, non_blocking=True)
        noise = self.noise.to(device, non_blocking=True)
        count, height, width, channels = pixels.shape
        images = torch.empty((count, channels, height, width), device=device)
        mean, std = _of_bytes(self.normalisation, device)
        # A GPU does all at once, a CPU an image at a time, which its cache holds.
        together = 1 if device.type == "cpu" else count
        for some, into in zip(pixels.split(together), images.split(together), strict=True):
            into.copy_(some.permute(0, 3, 1, 2))
            into.sub_(mean).div_(std)
        start = 0
        for image, top, left, tall, wide in self.places:
            size = channels * tall * wide
            patch = noise[start : start + size].view(channels, tall, wide)
            images[image, :, top : top + tall, left : left + wide] = patch
            start += size
        return images


@lru_cache
def _of_bytes(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of pixels in [0, 255], kept on the device: sending them would make a GPU wait."""
    mean, std = (255 * torch.tensor(values).view(-1, 1, 1) for values in (normalisation.mean, normalisation.std))
    return mean.to(device), std.to(device)

"""Images in memory, and functions that such data sets share."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImagesInMemory:
    """Normalised images, float32 (images, channels, height, width), and their classes, int64 (images,)."""

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None  # the pixels of the object, bool (images, height, width); None if unknown
    is_random: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def take(self, indices: Tensor) -> ImagesInMemory:
        masks = None if self.masks is None else self.masks[indices]
        return ImagesInMemory(self.images[indices], self.labels[indices], masks)


def array_digest(*arrays: NDArray[Any]) -> str:
    """Return a digest of the arrays' bytes, 16 hex digits."""
    digest = blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

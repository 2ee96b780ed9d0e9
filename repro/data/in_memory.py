"""Images that fit into memory, and what data sets of them share."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from repro.config import Data, Recipe
from repro.errors import UserError


@dataclass(frozen=True, eq=False)
class ImagesInMemory:
    """Normalised images in memory: float32 (images, channels, height, width), and their classes, int64 (images,).

    `masks`, where somebody knows them, are bool (images, height, width): the pixels of the object that the class is of.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None
    is_random: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def take(self, indices: Tensor) -> ImagesInMemory:
        """These images only."""
        masks = None if self.masks is None else self.masks[indices]
        return ImagesInMemory(self.images[indices], self.labels[indices], masks)


def check_not_augmented(data: Data, recipe: Recipe) -> None:
    """Raise `UserError` for a recipe that augments: images in memory are taken as they are."""
    for key, value in (
        ("rand_augment", recipe.rand_augment),
        ("color_jitter", recipe.color_jitter),
        ("random_erasing", recipe.random_erasing),
    ):
        if value:
            raise UserError(f"recipe.{key}={value}: data={data.name} is not augmented; use a local recipe")


def digest(*parts: NDArray[Any]) -> str:
    """16 hex digits that change when any byte of the arrays does."""
    found = blake2b(digest_size=8)
    for part in parts:
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()

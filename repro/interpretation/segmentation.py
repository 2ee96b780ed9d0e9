"""How well heat maps find objects: pixel accuracy, mean accuracy and mean intersection over union.

Object and background are two classes; pixels are counted over all images before anything is divided, as is usual for
segmentation (Long et al., CVPR 2015) and done for heat maps on ImageNet-Segmentation (Chefer et al., CVPR 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def segment(heat: Tensor) -> Tensor:
    """What a heat map takes for the object: the pixels above its mean, bool of the same shape."""
    return heat > heat.mean()


@dataclass(frozen=True)
class Counts:
    """Pixels by what they are and what they are taken for; counts of several images add up."""

    object_as_object: int = 0
    object_as_background: int = 0
    background_as_object: int = 0
    background_as_background: int = 0

    @classmethod
    def of(cls, found: Tensor, true: Tensor) -> Counts:
        """Of masks of one shape, bool: what was found, and what is true. Raises `ValueError` for different shapes."""
        if found.shape != true.shape:
            raise ValueError(f"a mask of {tuple(found.shape)} for a truth of {tuple(true.shape)}")
        return cls(
            int((found & true).sum()),
            int((~found & true).sum()),
            int((found & ~true).sum()),
            int((~found & ~true).sum()),
        )

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.object_as_object + other.object_as_object,
            self.object_as_background + other.object_as_background,
            self.background_as_object + other.background_as_object,
            self.background_as_background + other.background_as_background,
        )

    def metrics(self) -> dict[str, float]:
        """In percent: the share of pixels that are right, its mean over classes, and the mean over classes of
        intersection / union.

        Raises `ValueError` where no pixel is of the object, or none of the background.
        """
        right, missed = self.object_as_object, self.object_as_background
        false, quiet = self.background_as_object, self.background_as_background
        if not right + missed or not false + quiet:
            raise ValueError("segmentation is measured on objects before a background: one of them has no pixel")
        return {
            "pixel_accuracy_pct": 100 * (right + quiet) / (right + missed + false + quiet),
            "mean_accuracy_pct": 100 * (right / (right + missed) + quiet / (false + quiet)) / 2,
            "mean_iou_pct": 100 * (right / (right + missed + false) + quiet / (missed + false + quiet)) / 2,
        }

"""Segmentation metrics of heat maps: pixel accuracy, mean accuracy and mean intersection over union.

Object and background are two classes. Pixels are counted over all images before dividing, as in Long et al. (CVPR
2015), and for heat maps on ImageNet-Segmentation in Chefer et al. (CVPR 2021).
"""

from __future__ import annotations

from torch import Tensor

from repro.errors import UserError


def segment(heat: Tensor) -> Tensor:
    """Predict the object in a heat map as the pixels above its mean, bool of the same shape."""
    return heat > heat.mean()


def confusion(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the confusion matrix of two bool masks, int64 (2, 2): rows are true, columns predicted, object first.

    Matrices of several images can be added. Raises `ValueError` for different shapes.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"predicted mask of {tuple(predicted.shape)}, true mask of {tuple(true.shape)}")
    return (2 * ~true + ~predicted).flatten().bincount(minlength=4).view(2, 2)


def metrics(counts: Tensor) -> dict[str, float]:
    """Return pixel accuracy, mean accuracy over classes, and mean intersection over union, in percent.

    Raises `UserError` if no pixel belongs to the object, or none to the background.
    """
    right, true, predicted = counts.double().diag(), counts.sum(1), counts.sum(0)
    if not true.all():
        raise UserError(
            "segmentation metrics need an object and a background, and one of them has no pixel in these masks; take "
            "more images"
        )
    return {
        "pixel_accuracy_pct": float(100 * right.sum() / true.sum()),
        "mean_accuracy_pct": float(100 * (right / true).mean()),
        "mean_iou_pct": float(100 * (right / (true + predicted - right)).mean()),
    }

"""What happens to an image between its file and the model: timm's transforms, with the recipe's numbers."""

from __future__ import annotations

from collections.abc import Callable

from PIL.Image import Image
from timm.data import create_transform
from torch import Tensor

from repro.config import Data, ImageGeometry, Recipe
from repro.errors import UserError

Transform = Callable[[Image], Tensor]


def training_transform(data: Data, recipe: Recipe, model: ImageGeometry) -> Transform:
    """DeiT's training transform: random resized crop, flip, RandAugment or colour jitter, normalise, erase.

    As in DeiT, timm leaves colour jitter out where RandAugment is on. Everything random comes from the global
    generators of Python, NumPy and torch. Raises `UserError` for a RandAugment policy that timm does not know.
    Source: github.com/facebookresearch/deit, datasets.py.
    """
    try:
        transform: Transform = create_transform(
            input_size=(model.in_chans, model.image_size, model.image_size),
            is_training=True,
            auto_augment=recipe.rand_augment,
            color_jitter=recipe.color_jitter or None,
            interpolation=recipe.interpolation,
            mean=data.mean,
            std=data.std,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            re_count=1,
        )
    except (AssertionError, KeyError, ValueError):  # what timm answers to a policy's first, or any later, wrong part
        raise UserError(
            f"recipe.rand_augment={recipe.rand_augment}: no policy of timm's; valid: null, or like rand-m9-mstd0.5-inc1"
        ) from None
    return transform


def evaluation_transform(data: Data, recipe: Recipe, model: ImageGeometry) -> Transform:
    """timm's evaluation transform: resize to `image_size / eval_crop_pct` pixels, take the centre, normalise.

    Where the training draws its interpolation, evaluation is bicubic, as DeiT's.
    """
    transform: Transform = create_transform(
        input_size=(model.in_chans, model.image_size, model.image_size),
        is_training=False,
        interpolation="bicubic" if recipe.interpolation == "random" else recipe.interpolation,
        mean=data.mean,
        std=data.std,
        crop_pct=recipe.eval_crop_pct,
    )
    return transform

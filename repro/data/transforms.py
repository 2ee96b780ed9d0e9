"""timm's image transforms, with the values of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugMixAugment, AutoAugment, RandAugment
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import RandomCrop

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry
from repro.data.fast_transform import FastTransform
from repro.data.uint8_batch import Normalisation, Uint8Image
from repro.errors import UserError

SMALL_IMAGE_PADDING = 4  # pixels, as in DeiT's datasets.py for images of up to 32 pixels

Operation = Callable[..., Image.Image]


def training_transform(data: Data, recipe: Recipe, model: Geometry) -> Callable[[Image.Image], Tensor | Uint8Image]:
    """Return DeiT's training transform, which takes an image of any mode.

    It consists of random resized crop, flip, RandAugment or colour jitter, normalisation, and random erasing. As in
    DeiT, RandAugment disables colour jitter. With `data.decoder=pil`, this is timm's transform itself. `fast` makes the
    same random draws, but computes in uint8 (`FastTransform`). All random numbers come from the global generators of
    Python, NumPy and torch. Raises `UserError` for a RandAugment policy that timm does not know.
    Source: github.com/facebookresearch/deit, datasets.py.
    """
    if data.decoder == "pil":
        transform = _timm_transform(data, recipe, model)
        return lambda image: transform(image.convert("RGB"))
    crop_and_flip, augmentation, to_floats = _timm_transform(data, recipe, model, separate=True)
    crop, *flips = crop_and_flip.transforms
    erasing = next((step for step in to_floats.transforms if isinstance(step, RandomErasing)), None)
    return FastTransform(crop, [*flips, *augmentation.transforms], erasing, Normalisation(data.mean, data.std))


def padded_crop_transform(data: Data, recipe: Recipe, model: Geometry) -> Callable[[Image.Image], Tensor]:
    """Return DeiT's training transform for small images, which pads by 4 pixels and crops instead of resizing."""
    transform = _timm_transform(data, recipe, model)
    transform.transforms[0] = RandomCrop(model.image_size, padding=SMALL_IMAGE_PADDING)
    result: Callable[[Image.Image], Tensor] = transform
    return result


def evaluation_transform(data: Data, recipe: Recipe, model: Geometry) -> Callable[[Image.Image], Tensor]:
    """Return timm's evaluation transform: resize to `image_size / eval_crop_pct`, centre crop, normalise.

    It does not depend on `data.decoder`, so that accuracies are comparable with published ones. As in DeiT, a recipe
    that draws its interpolation at random is evaluated with bicubic interpolation.
    """
    transform = create_transform(
        input_size=(model.in_chans, model.image_size, model.image_size),
        is_training=False,
        interpolation="bicubic" if recipe.interpolation == "random" else recipe.interpolation,
        mean=data.mean,
        std=data.std,
        crop_pct=recipe.eval_crop_pct,
    )
    return lambda image: transform(image.convert("RGB"))


def _timm_transform(data: Data, recipe: Recipe, model: Geometry, separate: bool = False) -> Any:
    """Return timm's training transform.

    If `separate`, return three transforms: crop and flip, augmentation, and normalisation with erasing.
    """
    try:
        transform = create_transform(
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
            separate=separate,
        )
    except (AssertionError, KeyError, ValueError):  # what timm raises depends on which part of the policy is wrong
        raise UserError(
            f"recipe.rand_augment={recipe.rand_augment}: not a policy of timm's; valid: null, or like "
            "rand-m9-mstd0.5-inc1"
        ) from None
    for part in transform if separate else (transform,):
        allow_zero_bits(part)
    return transform


def allow_zero_bits(transform: Any) -> None:
    """Make timm's posterize operations return black images for 0 bits, as with Pillow before version 13.

    Pillow 13 rejects 0 bits, which DeiT's policy draws about once in 700 images.
    """
    for step in transform.transforms:
        if isinstance(step, AutoAugment):
            operations = [operation for policy in step.policy for operation in policy]
        else:
            operations = step.ops if isinstance(step, RandAugment | AugMixAugment) else []
        for operation in operations:
            if operation.name.startswith("Posterize"):
                operation.aug_fn = partial(_posterize, operation.aug_fn)


def _posterize(timm_posterize: Operation, image: Image.Image, bits: int, **options: Any) -> Image.Image:
    return timm_posterize(image, bits, **options) if bits > 0 else Image.new("RGB", image.size)

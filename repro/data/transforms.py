"""What happens to an image between its file and the model: timm's transforms, with the recipe's numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, RandAugment
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from repro.config import Data, Recipe
from repro.data import row_shifts
from repro.data.decoding import decoded_rgb
from repro.data.unfinished import Normalisation, View
from repro.data.views import Views
from repro.errors import UserError
from repro.geometry import Geometry

Transform = Callable[[Image.Image], Tensor]
Draw = Callable[..., Image.Image]

# timm's name of an operation, and what gives the same as its bicubic transform in less time. What timm passes as a
# share is taken times the image's width (0) or height (1).
_SHIFTS: dict[str, tuple[Draw, int | None]] = {
    "ShearX": (row_shifts.shear_x, None),
    "ShearY": (row_shifts.shear_y, None),
    "TranslateXRel": (row_shifts.translate_x, 0),
    "TranslateYRel": (row_shifts.translate_y, 1),
}


def training_view(data: Data, recipe: Recipe, model: Geometry) -> Callable[[bytes, str], Tensor | View]:
    """What makes a training view of an image file's bytes and name, by the decoder that `data.decoder` names.

    `pil` is timm's transform as it is; `fast` draws the same and computes in bytes (`repro.data.views`).
    """
    if data.decoder == "pil":
        transform = training_transform(data, recipe, model)
        return lambda encoded, name: transform(decoded_rgb(encoded, name))
    # timm gives its transform in three parts: of the image, of its colours and shape, and from bytes to floats.
    first, middle, last = _timms(data, recipe, model, separate=True)
    crop, *flips = first.transforms
    operations = middle.transforms
    for operation in operations:
        if isinstance(operation, RandAugment):
            for op in operation.ops:
                _shift_rows(op)
    erasing = next((each for each in last.transforms if isinstance(each, RandomErasing)), None)
    return Views(crop, [*flips, *operations], erasing, Normalisation(data.mean, data.std))


def evaluation_view(data: Data, recipe: Recipe, model: Geometry) -> Callable[[bytes, str], Tensor]:
    """The same for evaluation: timm's transform whatever the decoder, so that accuracies compare with everybody's."""
    transform = evaluation_transform(data, recipe, model)
    return lambda encoded, name: transform(decoded_rgb(encoded, name))


def training_transform(data: Data, recipe: Recipe, model: Geometry) -> Transform:
    """DeiT's training transform: random resized crop, flip, RandAugment or colour jitter, normalise, erase.

    As in DeiT, timm leaves colour jitter out where RandAugment is on. Everything random comes from the global
    generators of Python, NumPy and torch. Raises `UserError` for a RandAugment policy that timm does not know.
    Source: github.com/facebookresearch/deit, datasets.py.
    """
    transform: Transform = _timms(data, recipe, model)
    return transform


def _timms(data: Data, recipe: Recipe, model: Geometry, separate: bool = False) -> Any:
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
    except (AssertionError, KeyError, ValueError):  # what timm answers to a policy's first, or any later, wrong part
        raise UserError(
            f"recipe.rand_augment={recipe.rand_augment}: no policy of timm's; valid: null, or like rand-m9-mstd0.5-inc1"
        ) from None
    for part in transform if separate else (transform,):
        for operation in part.transforms:
            for op in operation.ops if isinstance(operation, RandAugment) else ():
                if op.name.startswith("Posterize"):
                    op.aug_fn = partial(_posterize, op.aug_fn)
    return transform


def _posterize(timms: Draw, image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """An image of no bits is black, as it was until Pillow 13, which refuses; timm draws it once in 700 images."""
    return timms(image, bits, **options) if bits > 0 else Image.new("RGB", image.size)


def _shift_rows(op: AugmentOp) -> None:
    """Give one of timm's operations a quicker way to do the same, where it is one that only moves rows or columns."""
    if op.name in _SHIFTS:
        op.aug_fn = partial(_shifted, op.aug_fn, *_SHIFTS[op.name])


def _shifted(
    timms: Draw, ours: Draw, side: int | None, image: Image.Image, level: float, **options: Any
) -> Image.Image:
    if options["resample"] != Image.Resampling.BICUBIC:  # bilinear, or drawn
        return timms(image, level, **options)
    return ours(image, level if side is None else level * image.size[side], options["fillcolor"])


def evaluation_transform(data: Data, recipe: Recipe, model: Geometry) -> Transform:
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

"""What is known of each data set without reading it, and the settings that do not fit. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry
from repro.errors import UserError


@dataclass(frozen=True)
class DataSet:
    """Facts of a data set; None for those that differ between users.

    Attributes:
        module: module that loads it, imported only when used: ImageNet does not need scikit-learn, for example.
        channels: channels of an image.
        classes: number of classes.
        images: number of training and test images or videos.
        sides: smallest and largest image size in pixels, for images that are not resized.
        takes_augmentation: whether a recipe's image augmentation is applied.
    """

    module: str
    channels: int = 3
    classes: int | None = None
    images: tuple[int, int] | None = None
    sides: tuple[int, int | None] = (1, None)
    takes_augmentation: bool = True


DATA_SETS = {
    "cifar10": DataSet("repro.data.cifar", classes=10, images=(50_000, 10_000), sides=(32, 32)),
    "cifar100": DataSet("repro.data.cifar", classes=100, images=(50_000, 10_000), sides=(32, 32)),
    "digits": DataSet(
        "repro.data.digits", channels=1, classes=10, images=(1437, 360), sides=(8, 8), takes_augmentation=False
    ),
    "imagefolder": DataSet("repro.data.image_folders"),
    "imagenet": DataSet("repro.data.image_folders"),
    "kinetics400": DataSet("repro.data.kinetics400", takes_augmentation=False),
    # In images of fewer than 16 pixels, a star looks like a disc.
    "shapes": DataSet("repro.data.shapes", classes=8, images=(4096, 1024), sides=(16, None), takes_augmentation=False),
    "shapes_video": DataSet("repro.data.shapes_video", classes=8, images=(768, 256), takes_augmentation=False),
}
_AUGMENTATION = {"rand_augment": "null", "color_jitter": "0", "random_erasing": "0"}


def split_sizes(name: str) -> tuple[int, int]:
    """Return the numbers of training and test images, or videos, of a data set that is the same for every user."""
    sizes = DATA_SETS[name].images
    assert sizes is not None
    return sizes


def check_takes_clips(data: Data, model: Geometry) -> None:
    """Raise `UserError` if the data are clips of videos and the model takes images, or vice versa."""
    takes_clips = len(model.input_shape) == 4
    if takes_clips != (data.clip is not None):
        expected = "clips: set data=kinetics400 or data=shapes_video" if takes_clips else "images, not clips of videos"
        raise UserError(f"data={data.name}: the model takes {expected}")


def settings_to_change(data: Data, recipe: Recipe, model: Geometry) -> list[str]:
    """Return an override for each setting that does not fit what is known of the data set."""
    known = DATA_SETS[data.name]
    least, most = known.sides
    wanted = {}
    if model.in_chans != known.channels:
        wanted["model.in_chans"] = str(known.channels)
    if known.classes not in (None, model.num_classes):
        wanted["model.num_classes"] = str(known.classes)
    if model.image_size < least or (most is not None and model.image_size > most):
        wanted["model.image_size"] = str(least)
    for key in ("mean", "std"):
        if len(getattr(data, key)) != known.channels:
            wanted[f"data.{key}"] = f"[{','.join(['0.5'] * known.channels)}]"
    if known.images is not None:
        limits = {"limit_train": known.images[0], "limit_test": known.images[1]}
        wanted |= {f"data.{key}": "null" for key, of in limits.items() if (getattr(data, key) or 0) > of}
        if data.images_per_epoch not in (None, known.images[0]):
            wanted["data.images_per_epoch"] = str(known.images[0])
    if not known.takes_augmentation:
        wanted |= {f"recipe.{key}": value for key, value in _AUGMENTATION.items() if getattr(recipe, key)}
    return [f"{key}={value}" for key, value in wanted.items()]


def check_settings(data: Data, recipe: Recipe, model: Geometry) -> None:
    """Raise a `UserError` that lists all settings that do not fit what is known of the data set."""
    check_takes_clips(data, model)
    if wrong := settings_to_change(data, recipe, model):
        raise do_not_fit(data, f"data={data.name}", wrong)


def do_not_fit(data: Data, place: str, settings: Sequence[str]) -> UserError:
    """Return the error of data at `place` that do not fit the config, with the settings to change."""
    kind = "images" if data.clip is None else "videos"
    return UserError(f"{place}: its {kind} do not fit the config; set {' '.join(settings)}")

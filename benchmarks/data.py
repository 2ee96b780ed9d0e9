"""Training images of ImageNet's usual size a second and core: ours against Pillow and timm's DeiT transform.

Theirs is what people write: open, convert, timm's transform, stack. Ours is the loader of a training as it is, in one
process: reading, seeding each position's generators, decoding, augmenting, and normalising and erasing the batch on
the same core (beside a GPU, that is done there).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds
from repro.composition import compose
from repro.config import Config, Recipe
from repro.data.decoding import decoded, decoded_rgb
from repro.data.image_files import list_class_folders
from repro.data.loader import TrainLoader
from repro.data.shards_writing import write_shards
from repro.data.splits import load_splits
from repro.data.transforms import training_transform, training_view
from repro.data.unfinished import UnfinishedBatch, View
from repro.data.views import Views
from repro.seeding import seeded

WIDTH, HEIGHT, QUALITY = 500, 375, 96
IMAGES, BATCH, ROUNDS = 128, 32, 9
TARGET = 1.3


def data() -> list[Figure]:
    """The whole pipeline, what each part of it costs, and what leaves it as it is: the opt-out, and shards."""
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        root = Path(folder) / "photos"
        kilobytes = _write_photos(root)
        shards = Path(folder) / "shards"
        for split in ("train", "val"):
            write_shards(list_class_folders(root / split), shards / split, IMAGES // 2)
        return [
            _against_timm("fast", root, TARGET, {"kilobytes_per_image": kilobytes}),
            _against_timm("pil", root, None, {}),
            _in_shards(root, shards),
            *_parts(root),
        ]


def photo(generator: np.random.Generator) -> Image.Image:
    """An image with so much detail at every scale that its file is as long as ImageNet's are: about 110 kB."""
    pixels = generator.normal(0, 7, (HEIGHT, WIDTH, 3)) + 128
    for cells, contrast in ((4, 60), (12, 40), (40, 25), (130, 14)):
        coarse = Image.fromarray(generator.integers(0, 256, (3 * cells // 4, cells, 3), dtype=np.uint8))
        pixels += contrast * (np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / 128.0 - 1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _write_photos(root: Path) -> float:
    """Two classes of training images, and one image of each for validation; returns kilobytes per image."""
    generator = np.random.default_rng(0)
    for split, images in (("train", IMAGES // 2), ("val", 1)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                photo(generator).save(root / split / name / f"{number:03}.jpg", quality=QUALITY)
    sizes = [path.stat().st_size for path in root.rglob("*.jpg")]
    return round(sum(sizes) / len(sizes) / 1000, 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker, whatever the benchmarks run with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _config(root: Path, decoder: str) -> Config:
    overrides = ("backbone=deit_small", "scale=paper", "data=imagefolder", "data.images_per_epoch=null")
    return compose([*overrides, f"data.root={root}", f"data.decoder={decoder}", "model.num_classes=2"])


def _ours(root: Path, decoder: str) -> Callable[[], None]:
    """An epoch of the training's own loader; each call is the next epoch."""
    config = _config(root, decoder)
    images = load_splits(config.data, config.recipe, config.model).train
    loader = TrainLoader(images, global_batch=BATCH, micro_batch=BATCH, seed=0, repeats=1, workers=0)
    epochs = iter(range(1000))

    def epoch() -> None:
        for _ in loader.batches(next(epochs)):
            pass

    return epoch


def _theirs(root: Path) -> Callable[[], None]:
    config = _config(root, "pil")
    transform = timms_transform(config.recipe, config.model.image_size)
    _mend(transform, config)
    paths = sorted((root / "train").rglob("*.jpg"))

    def epoch() -> None:
        for start in range(0, len(paths), BATCH):
            torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]])

    return epoch


def timms_transform(recipe: Recipe, size: int, separate: bool = False) -> Any:
    """timm's DeiT training transform to `size` pixels as timm makes it, nothing of ours in it.

    With `separate`: what is before the augmentation, the augmentation, and what comes after it.
    """
    return create_transform(
        size,
        is_training=True,
        separate=separate,
        auto_augment=recipe.rand_augment,
        color_jitter=recipe.color_jitter,
        interpolation=recipe.interpolation,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        re_count=1,
    )


def _mend(transform: Any, config: Config) -> None:
    """With Pillow 13 timm's posterize fails where no bit is left, once in some hundred images: give it ours."""
    mended = training_transform(config.data, config.recipe, config.model)
    augment, ours = (
        next(each for each in whole.transforms if hasattr(each, "ops"))
        for whole in (transform, mended)  # type: ignore[attr-defined]
    )
    for theirs, own in zip(augment.ops, ours.ops, strict=True):
        if theirs.name.startswith("Posterize"):
            theirs.aug_fn = own.aug_fn


def _against_timm(decoder: str, root: Path, target: float | None, details: dict[str, Any]) -> Figure:
    pairs = in_turn(_theirs(root), _ours(root, decoder), ROUNDS)
    ratio = median_ratio(pairs)
    theirs, ours = (IMAGES / median(side) for side in zip(*pairs, strict=True))
    return Figure(
        f"training views of {WIDTH}x{HEIGHT} JPEGs at 224, DeiT's augmentation, one core, data.decoder={decoder}: "
        "images/s against Pillow + timm",
        "–" if target is None else f"at least {target:g} times",
        f"{ratio:.2f} times ({ours:.0f} images/s, theirs {theirs:.0f})",
        None if target is None else ratio >= target,
        {**_seconds(pairs, ("theirs", "ours")), **details},
    )


def _in_shards(root: Path, shards: Path) -> Figure:
    pairs = in_turn(_ours(root, "fast"), _ours(shards, "fast"), ROUNDS)
    return Figure(
        "the same in tar shards: images/s against a folder, both in the page cache",
        "–",
        f"{median_ratio(pairs):.2f} times",
        None,
        _seconds(pairs, ("folder", "shards")),
    )


def _parts(root: Path) -> list[Figure]:
    """What an image costs in each part: timm's way against ours, with the same draws."""
    encoded = [path.read_bytes() for path in sorted((root / "train").rglob("*.jpg"))]
    config = _config(root, "fast")
    first, middle, last = timms_transform(config.recipe, config.model.image_size, separate=True)
    _mend(middle, config)
    views = training_view(config.data, config.recipe, config.model)
    assert isinstance(views, Views)
    images = [decoded_rgb(each, "photo") for each in encoded]
    crops = [_drawn(0, number, lambda image=image: first(image)) for number, image in enumerate(images)]
    augmented = [torch.from_numpy(np.array(crop)) for crop in crops]
    flip, augment = views.middle

    def finish() -> None:
        for start in range(0, len(augmented), BATCH):
            made = [
                View(pixels, views._patches(pixels), views.normalisation) for pixels in augmented[start : start + BATCH]
            ]
            UnfinishedBatch.of(made).finished(torch.device("cpu"))

    def stack() -> None:
        for start in range(0, len(crops), BATCH):
            torch.stack([last(crop) for crop in crops[start : start + BATCH]])

    return [
        _part("decode", lambda each: decoded_rgb(each, ""), lambda each: decoded(each, ""), encoded),
        _part("random resized crop and flip", first, lambda image: flip(_cropped(views, image)), images),
        _part("RandAugment", middle, augment, crops),
        _whole("to floats, normalise, erase, stack", stack, finish),
    ]


def _cropped(views: Views, image: Image.Image) -> Image.Image:
    pixels: Tensor = views.cropped(image)
    return Image.fromarray(pixels.numpy())


def _drawn(epoch: int, number: int, action: Callable[[], Any]) -> Any:
    with seeded("bench", epoch, number):
        return action()


def _part(name: str, theirs: Callable[[Any], object], ours: Callable[[Any], object], items: list[Any]) -> Figure:
    def all_of(action: Callable[[Any], object]) -> Callable[[], None]:
        epochs = iter(range(1000))

        def every() -> None:
            with seeded("bench", next(epochs)):  # so that both draw the same
                for item in items:
                    action(item)

        return every

    return _whole(name, all_of(theirs), all_of(ours))


def _whole(name: str, theirs: Callable[[], None], ours: Callable[[], None]) -> Figure:
    pairs = in_turn(theirs, ours, ROUNDS)
    each = [1000 * median(side) / IMAGES for side in zip(*pairs, strict=True)]
    return Figure(
        f"of that, {name}",
        "–",
        f"{each[1]:.2f} ms an image, theirs {each[0]:.2f}",
        None,
        _seconds(pairs, ("theirs", "ours")),
    )


def _seconds(pairs: list[tuple[float, float]], names: tuple[str, str]) -> dict[str, Any]:
    return {
        f"{name}_ms_per_image": [round(value / IMAGES, 4) for value in milliseconds(side)]
        for name, side in zip(names, zip(*pairs, strict=True), strict=True)
    }

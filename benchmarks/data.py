"""Training images per second on one core, at ImageNet's usual size: the training loader versus Pillow and timm.

The reference is the usual code: open, convert, timm's DeiT transform, stack. The training loader runs in one process:
reading, seeding each position's generators, decoding, augmenting, and normalizing and erasing the batch on the same
core (when training on a GPU, the GPU does the last two).
"""

from __future__ import annotations

import io
import itertools
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

from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds
from repro.config import Config, Recipe
from repro.config.compose import compose
from repro.data.decoding import decode
from repro.data.fast_transform import FastTransform
from repro.data.loader import TrainLoader
from repro.data.pack import pack
from repro.data.splits import load_splits
from repro.data.transforms import allow_zero_bits, training_transform
from repro.data.uint8_batch import Uint8Batch
from repro.seeding import seeded

WIDTH, HEIGHT, QUALITY = 500, 375, 96
IMAGES, BATCH, ROUNDS = 128, 32, 9
TARGET = 1.2


def data() -> list[Figure]:
    """Measure the pipeline with each decoder and from shards, and each of its parts."""
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        root = Path(folder) / "photos"
        kilobytes = _write_photos(root)
        shards = Path(folder) / "shards"
        pack(root, shards, IMAGES // 2, lambda line: None)
        return [
            _ratio_to_timm("fast", root, TARGET, {"kilobytes_per_image": kilobytes}),
            _ratio_to_timm("pil", root, None, {}),
            _in_shards(root, shards),
            *_parts(root),
        ]


def photo(generator: np.random.Generator) -> Image.Image:
    """Return an image with detail at every scale, whose file is about as large as ImageNet's: 110 kB."""
    pixels = generator.normal(0, 7, (HEIGHT, WIDTH, 3)) + 128
    for cells, contrast in ((4, 60), (12, 40), (40, 25), (130, 14)):
        coarse = Image.fromarray(generator.integers(0, 256, (3 * cells // 4, cells, 3), dtype=np.uint8))
        pixels += contrast * (np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / 128.0 - 1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _write_photos(root: Path) -> float:
    """Write training images of two classes and one validation image of each; return kilobytes per image."""
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
    """Use one thread, as in a loader process."""
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
    """Return an action that loads the next epoch with the training loader."""
    config = _config(root, decoder)
    images = load_splits(config.data, config.recipe, config.model).train
    loader = TrainLoader(images, global_batch=BATCH, micro_batch=BATCH, seed=0, repeats=1, workers=0)
    epochs = iter(range(1000))

    def epoch() -> None:
        for _ in loader.batches(next(epochs)):
            pass

    return epoch


def _reference(root: Path) -> Callable[[], None]:
    config = _config(root, "pil")
    transform = timms_transform(config.recipe, config.model.image_size)
    allow_zero_bits(transform)
    paths = sorted((root / "train").rglob("*.jpg"))

    def epoch() -> None:
        for start in range(0, len(paths), BATCH):
            torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]])

    return epoch


def timms_transform(recipe: Recipe, size: int, separate: bool = False) -> Any:
    """Return timm's own DeiT training transform to `size` pixels; with `separate`, as timm's three parts."""
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


def _ratio_to_timm(decoder: str, root: Path, target: float | None, details: dict[str, Any]) -> Figure:
    pairs = in_turn(_reference(root), _ours(root, decoder), ROUNDS)
    ratio = median_ratio(pairs)
    reference, ours = (IMAGES / median(side) for side in zip(*pairs, strict=True))
    return Figure(
        f"training images of {WIDTH}x{HEIGHT} JPEGs at 224, DeiT's augmentation, one core, data.decoder={decoder}: "
        "images/s against Pillow + timm",
        "–" if target is None else f"at least {target:g} times",
        f"{ratio:.2f} times ({ours:.0f} images/s, reference {reference:.0f})",
        None if target is None else ratio >= target,
        {**_seconds(pairs, ("reference", "ours")), **details},
    )


def _in_shards(root: Path, shards: Path) -> Figure:
    pairs = in_turn(_ours(root, "fast"), _ours(shards, "fast"), ROUNDS)
    return Figure(
        "the same in shards: images/s against a folder, both in the page cache",
        "–",
        f"{median_ratio(pairs):.2f} times",
        None,
        _seconds(pairs, ("folder", "shards")),
    )


def _parts(root: Path) -> list[Figure]:
    """Time each part of the transform relative to timm's, with the same random draws."""
    files = [path.read_bytes() for path in sorted((root / "train").rglob("*.jpg"))]
    config = _config(root, "fast")
    crop_and_flip, augment, to_floats = timms_transform(config.recipe, config.model.image_size, separate=True)
    allow_zero_bits(augment)
    fast = training_transform(config.data, config.recipe, config.model)
    assert isinstance(fast, FastTransform)
    flip, fast_augment = fast.augmentations
    images = [_decode_rgb(file) for file in files]
    with seeded("bench"):
        crops = [crop_and_flip(image) for image in images]
    pixels = [torch.from_numpy(np.array(crop)) for crop in crops]

    def stack() -> None:
        for start in range(0, len(crops), BATCH):
            torch.stack([to_floats(crop) for crop in crops[start : start + BATCH]])

    def fast_stack() -> None:
        for start in range(0, len(pixels), BATCH):
            batch = Uint8Batch.of([fast.random_erase(image) for image in pixels[start : start + BATCH]])
            batch.to_float(torch.device("cpu"))

    def fast_crop_and_flip(image: Image.Image) -> Image.Image:
        return flip(Image.fromarray(fast.random_crop(image).numpy()))

    return [
        _part("decode", _over(files, _decode_rgb), _over(files, lambda file: decode(file, ""))),
        _part("random resized crop and flip", _over(images, crop_and_flip), _over(images, fast_crop_and_flip)),
        _part("RandAugment", _over(crops, augment), _over(crops, fast_augment)),
        _part("to floats, normalise, erase, stack", stack, fast_stack),
    ]


def _decode_rgb(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")


def _over(items: list[Any], action: Callable[[Any], object]) -> Callable[[], None]:
    """Return a function that applies `action` to every item, with different random draws in each call."""
    calls = itertools.count()

    def on_every_item() -> None:
        with seeded("bench", next(calls)):
            for item in items:
                action(item)

    return on_every_item


def _part(name: str, reference: Callable[[], None], ours: Callable[[], None]) -> Figure:
    pairs = in_turn(reference, ours, ROUNDS)
    reference_ms, ours_ms = (1000 * median(side) / IMAGES for side in zip(*pairs, strict=True))
    return Figure(
        f"of that, {name}",
        "–",
        f"{ours_ms:.2f} ms an image, reference {reference_ms:.2f}",
        None,
        _seconds(pairs, ("reference", "ours")),
    )


def _seconds(pairs: list[tuple[float, float]], names: tuple[str, str]) -> dict[str, Any]:
    return {
        f"{name}_ms_per_image": [round(value / IMAGES, 4) for value in milliseconds(side)]
        for name, side in zip(names, zip(*pairs, strict=True), strict=True)
    }

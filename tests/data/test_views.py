"""The fast way to a training view against timm's: the same draws, the same pixels but for their resampling."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import folder_config
from PIL import Image
from timm.data.auto_augment import RandAugment
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor

from benchmarks.data import timms_transform
from benchmarks.decoders import logits_of_views
from repro.config import Config
from repro.data.image_files import ImageFiles
from repro.data.loader import TrainLoader
from repro.data.splits import load_splits
from repro.data.transforms import training_view
from repro.data.unfinished import UnfinishedBatch, View
from repro.errors import UserError
from repro.models.backbone import build_model
from repro.seeding import seeded

CPU = torch.device("cpu")
SIZE = 64
# How far a model's logits of the same view by the two decoders may be apart, in standard deviations of its logits.
LOGITS_MEDIAN, LOGITS_MEAN, SAME_GUESSES = 0.001, 0.01, 0.98
# Nothing but the crop and the flip.
PLAIN = {"recipe.rand_augment": "null", "recipe.color_jitter": 0, "recipe.random_erasing": 0}


def photo(width: int = 125, height: int = 94, seed: int = 0) -> Image.Image:
    """Coarse and fine structure, as a photograph has."""
    drawn = np.random.default_rng(seed)
    pixels = drawn.normal(0, 6, (height, width, 3)) + 128
    for cells, contrast in ((4, 60), (12, 30), (40, 15)):
        coarse = Image.fromarray(drawn.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += contrast * (np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 128.0 - 1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


PHOTO = jpeg(photo())


def config(decoder: str, **values: object) -> Config:
    return folder_config(Path("/nowhere"), **{"backbone.local.image_size": SIZE, "data.decoder": decoder, **values})


def view_of(decoder: str, **values: object) -> Callable[[bytes, str], Tensor | View]:
    made = config(decoder, **values)
    return training_view(made.data, made.recipe, made.model)


def finished(view: Tensor | View) -> Tensor:
    return UnfinishedBatch.of([view]).finished(CPU)[0] if isinstance(view, View) else view


def drawn(view: Callable[[bytes, str], Tensor | View], seed: int, data: bytes = PHOTO) -> Tensor:
    with seeded("test", seed):
        return finished(view(data, "photo.jpg"))


def levels(one: Tensor, other: Tensor) -> Tensor:
    """How far two normalised images are apart, in steps of a pixel in [0, 255]."""
    std = torch.tensor(config("pil").data.std).view(-1, 1, 1)
    return (one - other).abs() * std * 255


def test_pil_is_timms_transform_bit_for_bit() -> None:
    view, timms = view_of("pil"), timms_transform(config("pil").recipe, SIZE)
    compared = 0
    for seed in range(60):
        with seeded("test", seed):
            try:
                expected = timms(Image.open(io.BytesIO(PHOTO)).convert("RGB"))
            except ValueError as error:  # see test_an_image_of_no_bits_is_black
                assert "bits must be" in str(error)  # noqa: PT017
                continue
        assert drawn(view, seed).equal(expected)
        compared += 1
    assert compared > 50


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_a_crop_differs_by_last_bits_only(interpolation: str) -> None:
    plain = {**PLAIN, "recipe.interpolation": interpolation}
    fast, pil = view_of("fast", **plain), view_of("pil", **plain)
    for seed in range(60):
        apart = levels(drawn(fast, seed), drawn(pil, seed))
        # Pillow and torch round between the two directions of a resize, each in its own way.
        assert apart.max() < 2.01
        assert (apart > 1.01).float().mean() < 1e-3
        assert apart.mean() < 0.3


class Spy:
    """Notes what timm draws for an image, whichever way its pixels go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        crop, augment = RandomResizedCropAndInterpolation.get_params, RandAugment.__call__

        def get_params(*arguments: Any) -> Any:
            self.seen.append(crop(*arguments))
            return self.seen[-1]

        def call(own: RandAugment, image: Image.Image) -> Image.Image:
            for op in own.ops:
                op.aug_fn = self._noting(op.name, op.aug_fn)
            return augment(own, image)

        monkeypatch.setattr(RandomResizedCropAndInterpolation, "get_params", staticmethod(get_params))
        monkeypatch.setattr(RandAugment, "__call__", call)

    def _noting(self, name: str, function: Any) -> Any:
        if hasattr(function, "is_noted"):
            return function

        def noted(image: Image.Image, *levels: float, **options: Any) -> Image.Image:
            self.seen.append((name, levels, sorted(options.items())))
            result: Image.Image = function(image, *levels, **options)
            return result

        noted.is_noted = True  # type: ignore[attr-defined]
        return noted


@pytest.mark.parametrize("interpolation", ["bicubic", "random"])
def test_the_draws_are_timms(monkeypatch: pytest.MonkeyPatch, interpolation: str) -> None:
    spy = Spy(monkeypatch)
    names: set[str] = set()
    views = [view_of(way, **{"recipe.interpolation": interpolation}) for way in ("fast", "pil")]
    for seed in range(150):
        notes, ends = [], []
        for view in views:
            spy.seen = []
            with seeded("test", seed):
                view(PHOTO, "photo.jpg")
                ends.append((random.getstate(), np.random.random(), torch.get_rng_state().tolist()))
            notes.append(spy.seen)
        assert notes[0] == notes[1]
        assert ends[0] == ends[1]  # so nothing is drawn beside it: erasing and flips too
        names |= {note[0] for note in notes[0][1:]}
    assert len(names) == 15  # every operation has been seen


def test_whole_views_are_alike() -> None:
    fast, pil = view_of("fast", **{"recipe.random_erasing": 1.0}), view_of("pil", **{"recipe.random_erasing": 1.0})
    means = torch.tensor([levels(drawn(fast, seed), drawn(pil, seed)).mean() for seed in range(150)])
    # An operation with a threshold (posterize, solarize) makes more of a last bit; a wrong flip, box or noise is 30.
    assert means.median() < 0.1
    assert means.max() < 4


def test_what_is_erased_is_timms_noise() -> None:
    only = {**PLAIN, "recipe.random_erasing": 1.0}
    fast, pil = view_of("fast", **only), view_of("pil", **only)
    for seed in range(20):
        with seeded("test", seed):
            view = fast(PHOTO, "photo.jpg")
        assert isinstance(view, View)
        (patch,) = view.patches
        height, width = patch.noise.shape[1:]
        box = (slice(None), slice(patch.top, patch.top + height), slice(patch.left, patch.left + width))
        assert drawn(pil, seed)[box].equal(patch.noise)
        assert drawn(fast, seed)[box].equal(patch.noise)


def test_an_image_of_no_bits_is_black() -> None:
    # Pillow 13 refuses what DeiT's policy asks for once in some hundred images.
    for decoder in ("fast", "pil"):
        made = config(decoder, **{**PLAIN, "recipe.rand_augment": "rand-m10-n2-p1.0-inc1"})
        view = training_view(made.data, made.recipe, made.model)
        operations = view.middle if decoder == "fast" else view.__closure__[0].cell_contents.transforms  # type: ignore
        (augment,) = (each for each in operations if isinstance(each, RandAugment))
        (posterize,) = (op for op in augment.ops if op.name == "PosterizeIncreasing")
        assert np.asarray(posterize(photo())).max() == 0


# Files as they come ---------------------------------------------------------------------------------------------------


def odd_files() -> dict[str, bytes]:
    """What lies among a million photographs."""
    image = photo()
    png = io.BytesIO()
    image.save(png, "PNG")
    palette = io.BytesIO()
    image.convert("P").save(palette, "PNG", transparency=3)
    turned = image.getexif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees; nobody who trains on ImageNet does
    return {
        "grey": jpeg(image.convert("L")),
        "CMYK": jpeg(image.convert("CMYK")),
        "EXIF": jpeg(image, exif=turned),
        "progressive": jpeg(image, progressive=True),
        "not subsampled": jpeg(image, subsampling=0),
        "a PNG by another name": png.getvalue(),
        "palette": palette.getvalue(),
        "bytes after its end": PHOTO + b"\0" * 100,
        "smaller than the model's": jpeg(photo(20, 15)),
        "a line": jpeg(photo(200, 3)),
    }


@pytest.mark.parametrize("name", odd_files())
def test_odd_files_look_the_same(name: str) -> None:
    data = odd_files()[name]
    fast, pil = view_of("fast", **PLAIN), view_of("pil", **PLAIN)
    for seed in range(8):
        assert levels(drawn(fast, seed, data), drawn(pil, seed, data)).max() < 2.01


@pytest.mark.parametrize("data", [b"", b"not an image", PHOTO[:20], PHOTO[:-1], PHOTO[:-300], PHOTO[: len(PHOTO) // 2]])
def test_broken_files_are_refused_alike(data: bytes) -> None:
    said = []
    for decoder in ("fast", "pil"):
        try:
            drawn(view_of(decoder, **PLAIN), 0, data)
            said.append("taken")
        except UserError as error:
            said.append(str(error))
    assert said[0] == said[1]
    assert "\n" not in said[0]
    if data != PHOTO[:-1]:
        assert said[0].startswith("photo.jpg: cannot be decoded as an image (")


# Batches --------------------------------------------------------------------------------------------------------------


def train(flowers: Path, **values: object) -> ImageFiles:
    made = folder_config(flowers, **{"recipe.random_erasing": 0.5, "data.decoder": "fast", **values})
    images = load_splits(made.data, made.recipe, made.model).train
    assert isinstance(images, ImageFiles)
    return images


def batches(images: ImageFiles, first: int = 0, **options: int) -> list[tuple[Tensor, Tensor]]:
    settings = {"global_batch": 4, "micro_batch": 2, "seed": 3, "repeats": 3, "workers": 0, **options}
    return list(TrainLoader(images, **settings).batches(1, first))  # type: ignore[arg-type]


def test_a_batch_is_its_views_whoever_makes_it(flowers: Path) -> None:
    images = train(flowers)
    whole = batches(images)
    assert whole[0][0].shape == (2, 3, 32, 32)
    assert whole[0][0].dtype == torch.float32
    pixels = torch.cat([image for image, _ in whole])
    for workers in (0, 2):
        rest = batches(images, first=1, workers=workers)  # as after a resume
        assert torch.cat([image for image, _ in rest]).equal(pixels[4:])
        for rank in (0, 1):
            mine = torch.cat([image for image, _ in batches(images, workers=workers, world=2, rank=rank)])
            assert mine.equal(pixels[rank::2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finishes_a_batch_as_a_cpu_does() -> None:
    fast = view_of("fast", **{"recipe.random_erasing": 0.7})
    views = []
    for seed in range(6):
        with seeded("test", seed):
            view = fast(PHOTO, "photo.jpg")
        assert isinstance(view, View)
        views.append(view)
    batch = UnfinishedBatch.of(views)
    there = batch.pin_memory().finished(torch.device("cuda"))
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), batch.finished(CPU), rtol=0, atol=1e-6)


def test_evaluation_does_not_know_the_decoder(flowers: Path) -> None:
    seen = []
    for decoder in ("fast", "pil"):
        made = folder_config(flowers, **{"data.decoder": decoder})
        seen.append(load_splits(made.data, made.recipe, made.model).test[0][0])
    assert seen[0].equal(seen[1])


def test_a_model_says_the_same_of_views_by_either_decoder(flowers: Path) -> None:
    """Evaluation bit for bit; of augmented views a few, where an operation has a threshold, a little else."""
    made = folder_config(flowers)
    model = build_model(made.model, 0.0, 0).eval()
    with torch.no_grad():
        model.get_parameter("head.weight").normal_(generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (fast, labels), (pil, same) = (logits_of_views(model, made, decoder, 200) for decoder in ("fast", "pil"))
        tested = []
        for decoder in ("fast", "pil"):
            data = made.data.model_copy(update={"decoder": decoder})
            images = load_splits(data, made.recipe, made.model).test
            tested.append(model(torch.stack([images[number][0] for number in range(len(images))])))
    assert tested[0].equal(tested[1])
    assert labels.equal(same)
    apart = (fast - pil).abs() / pil.std()
    assert 0 < apart.median() < LOGITS_MEDIAN
    assert apart.mean() < LOGITS_MEAN
    assert (fast.argmax(1) == pil.argmax(1)).float().mean() > SAME_GUESSES


def test_time_spent_in_the_loader_is_counted(flowers: Path) -> None:
    stream = TrainLoader(train(flowers), global_batch=4, micro_batch=2, seed=0, repeats=1, workers=0).batches(0)
    counted = [stream.waited_s]
    for _ in stream:
        counted.append(stream.waited_s)
    assert counted[0] == 0
    assert all(before < after for before, after in pairwise(counted))

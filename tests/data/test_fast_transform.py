"""The fast training transform against timm's: the same draws, and the same pixels up to resampling."""

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
from benchmarks.decoders import logits_of_images
from repro.config import Config
from repro.data.decoding import decode
from repro.data.image_folders import ImageFiles
from repro.data.loader import TrainLoader
from repro.data.splits import load_splits
from repro.data.transforms import training_transform
from repro.data.uint8_batch import Uint8Batch, Uint8Image
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
    generator = np.random.default_rng(seed)
    pixels = generator.normal(0, 6, (height, width, 3)) + 128
    for cells, contrast in ((4, 60), (12, 30), (40, 15)):
        coarse = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += contrast * (np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 128.0 - 1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


PHOTO = jpeg(photo())


def config(decoder: str, **values: object) -> Config:
    return folder_config(Path("/nowhere"), **{"backbone.local.image_size": SIZE, "data.decoder": decoder, **values})


Transform = Callable[[Image.Image], Tensor | Uint8Image]


def transform_of(decoder: str, **values: object) -> Transform:
    made = config(decoder, **values)
    return training_transform(made.data, made.recipe, made.model)


def augmented(transform: Transform, seed: int, data: bytes = PHOTO) -> Tensor:
    with seeded("test", seed):
        image = transform(decode(data, "photo.jpg"))
    return Uint8Batch.of([image]).to_float(CPU)[0] if isinstance(image, Uint8Image) else image


def levels(one: Tensor, other: Tensor) -> Tensor:
    """How far two normalised images are apart, in steps of a pixel in [0, 255]."""
    std = torch.tensor(config("pil").data.std).view(-1, 1, 1)
    return (one - other).abs() * std * 255


def test_pil_is_timms_transform_bit_for_bit() -> None:
    pil, timms = transform_of("pil"), timms_transform(config("pil").recipe, SIZE)
    compared = 0
    for seed in range(60):
        with seeded("test", seed):
            try:
                expected = timms(Image.open(io.BytesIO(PHOTO)).convert("RGB"))
            except ValueError as error:  # see test_posterizing_to_no_bits_is_black
                assert "bits must be" in str(error)  # noqa: PT017
                continue
        assert augmented(pil, seed).equal(expected)
        compared += 1
    assert compared > 50


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_a_crop_differs_by_last_bits_only(interpolation: str) -> None:
    plain = {**PLAIN, "recipe.interpolation": interpolation}
    fast, pil = transform_of("fast", **plain), transform_of("pil", **plain)
    for seed in range(60):
        apart = levels(augmented(fast, seed), augmented(pil, seed))
        # Pillow and torch round between the two directions of a resize, each in its own way.
        assert apart.max() < 2.01
        assert (apart > 1.01).float().mean() < 1e-3
        assert apart.mean() < 0.3


class DrawRecorder:
    """Records what timm draws for an image, however the pixels are computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        crop, augment = RandomResizedCropAndInterpolation.get_params, RandAugment.__call__

        def get_params(*arguments: Any) -> Any:
            self.seen.append(crop(*arguments))
            return self.seen[-1]

        def call(own: RandAugment, image: Image.Image) -> Image.Image:
            for op in own.ops:
                op.aug_fn = self._recording(op.name, op.aug_fn)
            return augment(own, image)

        monkeypatch.setattr(RandomResizedCropAndInterpolation, "get_params", staticmethod(get_params))
        monkeypatch.setattr(RandAugment, "__call__", call)

    def _recording(self, name: str, function: Any) -> Any:
        if hasattr(function, "is_recorded"):
            return function

        def recorded(image: Image.Image, *levels: float, **options: Any) -> Image.Image:
            self.seen.append((name, levels, sorted(options.items())))
            result: Image.Image = function(image, *levels, **options)
            return result

        recorded.is_recorded = True  # type: ignore[attr-defined]
        return recorded


@pytest.mark.parametrize("interpolation", ["bicubic", "random"])
def test_the_draws_are_timms(monkeypatch: pytest.MonkeyPatch, interpolation: str) -> None:
    recorder = DrawRecorder(monkeypatch)
    operations: set[str] = set()
    transforms = [transform_of(decoder, **{"recipe.interpolation": interpolation}) for decoder in ("fast", "pil")]
    for seed in range(150):
        draws, states = [], []
        for transform in transforms:
            recorder.seen = []
            with seeded("test", seed):
                transform(decode(PHOTO, "photo.jpg"))
                states.append((random.getstate(), np.random.random(), torch.get_rng_state().tolist()))
            draws.append(recorder.seen)
        assert draws[0] == draws[1]
        assert states[0] == states[1]  # which covers flips and erasing too
        operations |= {draw[0] for draw in draws[0][1:]}
    assert len(operations) == 15  # every operation was drawn


def test_augmented_images_are_similar() -> None:
    fast, pil = (
        transform_of("fast", **{"recipe.random_erasing": 1.0}),
        transform_of("pil", **{"recipe.random_erasing": 1.0}),
    )
    means = torch.tensor([levels(augmented(fast, seed), augmented(pil, seed)).mean() for seed in range(150)])
    # An operation with a threshold (posterize, solarize) makes more of a last bit; a wrong flip, box or noise is 30.
    assert means.median() < 0.1
    assert means.max() < 4


def test_erased_boxes_are_timms_noise() -> None:
    only = {**PLAIN, "recipe.random_erasing": 1.0}
    fast, pil = transform_of("fast", **only), transform_of("pil", **only)
    for seed in range(20):
        with seeded("test", seed):
            image = fast(decode(PHOTO, "photo.jpg"))
        assert isinstance(image, Uint8Image)
        (box,) = image.erased
        height, width = box.noise.shape[1:]
        area = (slice(None), slice(box.top, box.top + height), slice(box.left, box.left + width))
        assert augmented(pil, seed)[area].equal(box.noise)
        assert augmented(fast, seed)[area].equal(box.noise)


@pytest.mark.parametrize("decoder", ["fast", "pil"])
def test_autoaugment_posterizes_to_no_bits(decoder: str) -> None:
    transform = transform_of(decoder, **{**PLAIN, "recipe.rand_augment": "v0"})
    for seed in range(60):
        assert augmented(transform, seed).isfinite().all()


@pytest.mark.parametrize("decoder", ["fast", "pil"])
def test_posterizing_to_no_bits_is_black(decoder: str) -> None:
    # At its highest level, DeiT's policy posterizes to 0 bits, which Pillow 13 refuses.
    transform = transform_of(decoder, **{**PLAIN, "recipe.rand_augment": "rand-m10-n1-p1.0-inc1"})
    black = -torch.tensor(config("pil").data.mean) / torch.tensor(config("pil").data.std)
    images = [augmented(transform, seed) for seed in range(60)]
    assert any(torch.allclose(image, black.view(3, 1, 1).expand_as(image), atol=1e-5) for image in images)


# Odd files ---------------------------------------------------------------------------------------------------------


def odd_files() -> dict[str, bytes]:
    """Kinds of files that are found among a million photographs."""
    image = photo()
    png = io.BytesIO()
    image.save(png, "PNG")
    palette = io.BytesIO()
    image.convert("P").save(palette, "PNG", transparency=3)
    turned = image.getexif()
    turned[0x0112] = 6  # to be shown rotated by 90 degrees, which published trainings on ImageNet ignore
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
def test_odd_files_are_decoded_alike(name: str) -> None:
    data = odd_files()[name]
    fast, pil = transform_of("fast", **PLAIN), transform_of("pil", **PLAIN)
    for seed in range(8):
        assert levels(augmented(fast, seed, data), augmented(pil, seed, data)).max() < 2.01


@pytest.mark.parametrize("data", [b"", b"not an image", PHOTO[:20], PHOTO[:-300], PHOTO[: len(PHOTO) // 2]])
def test_broken_files_are_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^photo\.jpg: cannot be decoded as an image \(.*\)$"):
        decode(data, "photo.jpg")


# Batches --------------------------------------------------------------------------------------------------------------


def train(flowers: Path, **values: object) -> ImageFiles:
    made = folder_config(flowers, **{"recipe.random_erasing": 0.5, "data.decoder": "fast", **values})
    images = load_splits(made.data, made.recipe, made.model).train
    assert isinstance(images, ImageFiles)
    return images


def batches(images: ImageFiles, first: int = 0, **options: int) -> list[tuple[Tensor, Tensor]]:
    settings = {"global_batch": 4, "micro_batch": 2, "seed": 3, "repeats": 3, "workers": 0, **options}
    return list(TrainLoader(images, **settings).batches(1, first))  # type: ignore[arg-type]


def test_a_batch_does_not_depend_on_workers_and_ranks(flowers: Path) -> None:
    images = train(flowers)
    whole = batches(images)
    assert whole[0][0].shape == (2, 3, 32, 32)
    assert whole[0][0].dtype == torch.float32
    pixels = torch.cat([image for image, _ in whole])
    for workers in (0, 2):
        rest = batches(images, first=1, workers=workers)  # a resumed epoch
        assert torch.cat([image for image, _ in rest]).equal(pixels[4:])
        for rank in (0, 1):
            mine = torch.cat([image for image, _ in batches(images, workers=workers, world=2, rank=rank)])
            assert mine.equal(pixels[rank::2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_normalises_and_erases_as_a_cpu_does() -> None:
    fast = transform_of("fast", **{"recipe.random_erasing": 0.7})
    images = []
    for seed in range(6):
        with seeded("test", seed):
            image = fast(decode(PHOTO, "photo.jpg"))
        assert isinstance(image, Uint8Image)
        images.append(image)
    batch = Uint8Batch.of(images)
    on_gpu = batch.pin_memory().to_float(torch.device("cuda"))
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), batch.to_float(CPU), rtol=0, atol=1e-6)


def test_evaluation_does_not_depend_on_the_decoder(flowers: Path) -> None:
    seen = []
    for decoder in ("fast", "pil"):
        made = folder_config(flowers, **{"data.decoder": decoder})
        seen.append(load_splits(made.data, made.recipe, made.model).test[0][0])
    assert seen[0].equal(seen[1])


def test_a_models_logits_agree_for_both_decoders(flowers: Path) -> None:
    """Exactly in evaluation; of augmented images, a few differ where an operation has a threshold."""
    made = folder_config(flowers)
    model = build_model(made.model, 0.0, 0).eval()
    with torch.no_grad():
        model.get_parameter("head.weight").normal_(generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (fast, labels), (pil, same) = (logits_of_images(model, made, decoder, 200) for decoder in ("fast", "pil"))
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


def test_time_spent_waiting_for_batches_is_counted(flowers: Path) -> None:
    stream = TrainLoader(train(flowers), global_batch=4, micro_batch=2, seed=0, repeats=1, workers=0).batches(0)
    counted = [stream.waited_s]
    for _ in stream:
        counted.append(stream.waited_s)
    assert counted[0] == 0
    assert all(before < after for before, after in pairwise(counted))

"""What `repro eval` measures and writes: the accuracy of one model on one data set, and what it rests on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from repro.config import Data
from repro.data.loader import evaluation_batches
from repro.data.splits import Images
from repro.data.test_images import TestImages, load_test_images
from repro.runs import provenance
from repro.seeding import seeded, stream_seed
from repro.training.distributed import World
from repro.training.evaluated import Evaluated
from repro.training.evaluation import Accuracy, tally
from repro.training.lost import lost_files
from repro.training.precision import autocast

SCHEMA = 1
IMAGENET_VALIDATION = 50_000
Progress = Callable[[int, int], None]


def measure(
    evaluated: Evaluated,
    data: Data,
    world: World,
    *,
    batch: int | None = None,
    amp: str = "none",
    progress: Progress = lambda done, of: None,
) -> dict[str, Any]:
    """Accuracy on the test images of `data`, each counted once over all ranks, as JSON values. All ranks must call it.

    Args:
        batch: images that one device holds at once; by default as many as the recipe evaluates with.
        amp: `none` or `bfloat16`.
        progress: is told how many of this rank's images are done, and of how many.

    Raises `UserError` where data and model do not go together, `PeerFailed` where another rank cannot go on.
    """
    size = batch or evaluated.recipe.eval_batch
    test = world.together("reading its data", lambda: load_test_images(data, evaluated.recipe, evaluated.geometry))
    model = evaluated.model.to(world.device)
    started = time.monotonic()
    accuracy = _accuracy(evaluated, test.images, data.workers, world, size, amp, progress)
    elapsed = time.monotonic() - started
    views = {
        f"top1_{name}_pct": _accuracy(
            evaluated, images, data.workers, world, max(1, size // len(images[0][0])), amp, lambda done, of: None
        ).top1_pct
        for name, images in test.views.items()
    }
    del model
    on_cpu = world.device.type == "cpu"
    return {
        "schema": SCHEMA,
        "model": evaluated.about,
        "geometry": evaluated.geometry.model_dump(mode="json"),
        "data": {
            "name": data.name,
            "split": "test",
            "images": accuracy.images,
            "of": test.every,
            "classes": test.num_classes,
            "fingerprint": test.fingerprint,
            "fingerprint_of": test.fingerprint_of,
            "skipped": len(test.skipped),
            "replaced": lost_files(test.lost, world),
            "is_imagenet_validation": is_imagenet_validation(data, test, accuracy.images),
        },
        "transform": {
            "image_size": evaluated.geometry.image_size,
            "crop_pct": evaluated.recipe.eval_crop_pct,
            "interpolation": evaluated.recipe.interpolation,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "top1_pct": accuracy.top1_pct,
        "top5_pct": accuracy.top5_pct,
        "loss": accuracy.loss,
        **views,
        "setting": {
            "device": torch.cuda.get_device_name(world.device) if not on_cpu else provenance.cpu_name(),
            "ranks": world.size,
            "threads": torch.get_num_threads() if on_cpu else None,
            "batch": size,
            "amp": amp,
            "workers": data.workers,
        },
        "wall_s": round(elapsed, 3),
        "images_per_s": round(accuracy.images / elapsed, 2),
        "provenance": provenance.collect(test.fingerprint, str(world.device), test.skipped),
    }


def is_imagenet_validation(data: Data, test: TestImages, images: int) -> bool:
    """Whether an accuracy on these images is one on ImageNet-1k: all validation images, all classes."""
    return data.name == "imagenet" and test.num_classes == 1000 and images == test.every == IMAGENET_VALIDATION


def said(name: str, report: dict[str, Any]) -> list[str]:
    """A report in two lines: what came out, and on which data, so that nobody takes it for ImageNet's."""
    data = report["data"]
    views = "".join(f", {key[len('top1_') : -len('_pct')]} {report[key]:.2f} %" for key in report if _is_view(key))
    first = (
        f"{name}: top-1 {report['top1_pct']:.2f} %, top-5 {report['top5_pct']:.2f} %{views}, loss {report['loss']:.4f}"
    )
    if data["is_imagenet_validation"]:
        return [first, "  on the 50,000 validation images of ImageNet-1k"]
    if data["replaced"]:
        first += f" ({data['replaced']} files broke while they were read: others of their class stood in for them)"
    part = "all" if data["images"] == data["of"] else f"{data['images']:,} of the"
    if data["name"] == "imagenet":
        why = "a part of ImageNet-1k's validation images: not an accuracy on ImageNet"
    else:
        why = "not ImageNet: compare it with other models on these images only"
    return [first, f"  on {part} {data['of']:,} test images of {data['name']} ({data['classes']} classes); {why}"]


def _is_view(key: str) -> bool:
    return key.startswith("top1_") and key != "top1_pct"


def _accuracy(
    evaluated: Evaluated, images: Images, workers: int, world: World, batch: int, amp: str, progress: Progress
) -> Accuracy:
    stream = ("evaluate", evaluated.seed, evaluated.update, world.rank)  # the training's: what is drawn is the same
    of = len(range(world.rank, len(images), world.size))

    def of_this_rank() -> Tensor:
        with (
            closing(
                evaluation_batches(images, batch, workers, world.rank, world.size, world.device.type == "cuda")
            ) as batches,
            seeded(*stream),
            autocast(amp, world.device),
        ):
            if world.device.type == "cuda":
                torch.cuda.manual_seed(stream_seed(*stream))
            return tally(evaluated.model, _counted(batches, of, progress), world.device)

    with torch.inference_mode():
        return Accuracy.of(world.total(world.together("evaluating", of_this_rank)))


def _counted(batches: Iterable[tuple[Tensor, Tensor]], of: int, progress: Progress) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for images, labels in batches:
        yield images, labels
        done += len(labels)
        progress(done, of)

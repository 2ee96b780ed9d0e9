"""The report of `repro eval`: the accuracy of a model on a data set, and the settings it depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch
from scipy.special import bdtrc  # type: ignore[import-untyped]
from torch import Tensor, nn

from repro.data.loader import evaluation_batches
from repro.data.splits import EvalSplit, Images, load_eval_split
from repro.data.unreadable_files import count_unreadable
from repro.distributed import World
from repro.errors import UserError, count_of, first_few
from repro.evaluation.sources import ModelSource
from repro.models.precision import autocast
from repro.runs import provenance
from repro.seeding import seeded, stream_seed
from repro.training.accuracy import Accuracy, count_correct

SCHEMA = 1
IMAGENET_VALIDATION = 50_000  # images
SIGNIFICANCE = 0.01  # significance level of the test whether an accuracy is above chance

Progress = Callable[[int, int], None]


def evaluate(
    source: ModelSource,
    world: World,
    *,
    batch: int | None = None,
    amp: str = "none",
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Return the accuracy on the test images of the source's data set, as JSON values.

    Must be called on every rank. Each image is counted once over all ranks, and unreadable ones are left out.

    Args:
        batch: images per forward pass on one device; default: the recipe's `eval_batch`.
        amp: `none` or `bfloat16`.
        progress: called with the number of images that this rank has evaluated, and its total.

    Raises `UserError` if data and model are incompatible or the model outputs NaN or infinity, `PeerFailed` if another
    rank failed.
    """
    data, size = source.data, batch or source.recipe.eval_batch
    test = world.on_every_rank("reading its data", lambda: _eval_split(source))
    source.model.to(world.device)
    started = time.monotonic()
    accuracy = _accuracy(source, test.images, world, size, amp, progress)
    elapsed = time.monotonic() - started
    views = {
        f"top1_{name}_pct": _accuracy(source, images, world, max(1, size // len(images[0][0])), amp).top1_pct
        for name, images in test.views.items()
    }
    chance_pct = _chance_pct(test.images.labels, test.num_classes)
    on_cpu = world.device.type == "cpu"
    return {
        "schema": SCHEMA,
        "model": source.about,
        "geometry": source.geometry.model_dump(mode="json"),
        "data": {
            "name": data.name,
            "split": "test",
            "images": accuracy.images,
            "of": test.total,
            "classes": test.num_classes,
            "are_training_classes": _are_training_classes(source, test),
            "fingerprint": test.fingerprint,
            "fingerprint_of": test.fingerprint_of,
            "skipped": len(test.skipped),
            "unreadable": count_unreadable(test.unreadable, world),
            "is_imagenet_validation": data.name == "imagenet"
            and test.num_classes == 1000
            and accuracy.images == test.total == IMAGENET_VALIDATION,
        },
        "transform": {
            "image_size": source.geometry.image_size,
            "crop_pct": source.recipe.eval_crop_pct,
            "interpolation": source.recipe.interpolation,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "top1_pct": accuracy.top1_pct,
        "top5_pct": accuracy.top5_pct,
        "loss": accuracy.loss,
        "chance_pct": chance_pct,
        "is_at_chance": _is_at_chance(accuracy, chance_pct),
        **views,
        "setting": {
            "device": provenance.cpu_name() if on_cpu else torch.cuda.get_device_name(world.device),
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


def _eval_split(source: ModelSource) -> EvalSplit:
    """Load the test images; raise `UserError` if their classes are known to differ from those of training."""
    data = source.data
    test = load_eval_split(data, source.recipe, source.geometry)
    if not source.classes or not test.class_names or test.class_names == source.classes:
        return test
    missing, extra = set(source.classes) - set(test.class_names), set(test.class_names) - set(source.classes)
    faults = [f"without {first_few(sorted(missing))}"] if missing else ["in another order"]
    if extra:
        faults.append(f"with {first_few(sorted(extra))}")
    raise UserError(
        f"data.root={data.root}: not the classes that the model was trained on ({', '.join(faults)}): its outputs mean "
        "other classes; evaluate it on folders of the same names"
    )


def _are_training_classes(source: ModelSource, test: EvalSplit) -> bool | None:
    """Return whether class names were compared with those of training; None for data sets with a fixed class order."""
    if source.classes:
        return True if test.class_names else None
    return False if test.class_names and source.data.name != "imagenet" else None


def _chance_pct(labels: Tensor, classes: int) -> float:
    """Return the accuracy of the best constant prediction, in percent: the share of the most frequent class."""
    if len(labels) < classes:  # a subset with fewer images than classes says nothing about class frequencies
        return 100 / classes
    return 100 * int(labels.bincount().max()) / len(labels)


def _is_at_chance(accuracy: Accuracy, chance_pct: float) -> bool:
    """Return whether an accuracy is not significantly above chance (one-sided binomial test at 1 %)."""
    correct = round(accuracy.top1_pct * accuracy.images / 100)
    return bool(bdtrc(correct - 1, accuracy.images, chance_pct / 100) > SIGNIFICANCE)


def summary(name: str, report: dict[str, Any]) -> list[str]:
    """Format a report as lines: the result, and the data set, so that it is not mistaken for ImageNet accuracy."""
    data = report["data"]
    views = {
        key.removeprefix("top1_").removesuffix("_pct"): value
        for key, value in report.items()
        if key.startswith("top1_") and key != "top1_pct"
    }
    result = ", ".join(
        [
            f"{name}: top-1 {report['top1_pct']:.2f} %",
            f"top-5 {report['top5_pct']:.2f} %",
            *(f"{view} {value:.2f} %" for view, value in views.items()),
            f"loss {report['loss']:.4f}",
        ]
    )
    chance = [f"  at chance: a constant answer has {report['chance_pct']:.2f} %"] * report["is_at_chance"]
    if data["is_imagenet_validation"]:
        return [result, "  on the 50,000 validation images of ImageNet-1k", *chance]
    if data["unreadable"]:
        result += f" ({count_of(data['unreadable'], 'unreadable file')} left out)"
    part = "all" if data["images"] == data["of"] else f"{data['images']:,} of the"
    if data["name"] == "imagenet":
        caveat = "a part of ImageNet-1k's validation images: not an accuracy on ImageNet"
    else:
        caveat = "not ImageNet: compare only with other models on these images"
    where = f"  on {part} {data['of']:,} test images of {data['name']} ({data['classes']} classes); {caveat}"
    unknown = "  the classes that the model was trained on are unknown: nothing was compared but their number"
    return [result, where, *chance, *[unknown] * (data["are_training_classes"] is False)]


def _accuracy(
    source: ModelSource,
    images: Images,
    world: World,
    batch: int,
    amp: str,
    progress: Progress = lambda done, total: None,
) -> Accuracy:
    # The random stream of the evaluation in training, so that a model that samples gives the same predictions.
    stream = ("evaluate", source.seed, source.update, world.rank)
    total = len(range(world.rank, len(images), world.size))
    on_gpu = world.device.type == "cuda"

    def count_on_rank() -> Tensor:
        batches = evaluation_batches(images, batch, source.data.workers, world.rank, world.size, on_gpu)
        with closing(batches), seeded(*stream), autocast(amp, world.device):
            if on_gpu:
                torch.cuda.manual_seed(stream_seed(*stream))
            return count_correct(source.model, _counted(batches, total, progress), world.device)

    with torch.inference_mode(), _finite_outputs(source.model, amp):
        return Accuracy.from_totals(world.total(world.on_every_rank("evaluating", count_on_rank)))


@contextmanager
def _finite_outputs(model: nn.Module, amp: str) -> Iterator[None]:
    """Raise `UserError` as soon as the model outputs NaN or infinity."""

    def check(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        if not logits.isfinite().all():
            cause = "the weights are damaged or diverged" if amp == "none" else f"try without --amp {amp}"
            raise UserError(f"the model puts out NaN or infinity for some images: it has no accuracy; {cause}")

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _counted(
    batches: Iterable[tuple[Tensor, Tensor]], total: int, progress: Progress
) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for images, labels in batches:
        yield images, labels
        done += len(labels)
        progress(done, total)

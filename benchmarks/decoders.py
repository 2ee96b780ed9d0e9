"""Whether the fast decoder moves an accuracy: small models trained through each, in pairs of the same seed.

The images are the embedded shapes, drawn at twice the model's size and written as JPEG files: a training view has to
be decoded, cropped, resized and augmented, as ImageNet's. Both of a pair begin with the same weights, see the same
images in the same order and draw the same augmentation.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.figures import Figure
from repro.config import Config
from repro.data.shapes import raw_splits
from repro.data.splits import load_splits
from repro.data.unfinished import UnfinishedBatch
from repro.report.statistics import summarise
from repro.runs.record import Record
from repro.seeding import seeded
from repro.training.evaluated import of_record

SIDE, QUALITY, TRAIN, SEEDS, EPOCHS = 64, 90, 2048, 5, 12
DECODERS = ("pil", "fast")
VIEWS, BATCH = 2048, 64
_RECIPE = (
    *("scale=local", "backbone=deit_small", "method=dense", "tracker=none", "data=imagefolder", "data.workers=0"),
    *(f"model.image_size={SIDE // 2}", "model.patch_size=4", "model.in_chans=3", "model.num_classes=8"),
    *("recipe.rand_augment=rand-m9-mstd0.5-inc1", "recipe.random_erasing=0.25", "recipe.eval_crop_pct=0.875"),
    *(f"recipe.epochs={EPOCHS}", f"recipe.evaluate_every_epochs={EPOCHS}", "recipe.mixup=0"),
)


def decoders() -> Iterator[Figure]:
    """Accuracies of the pairs, and one checkpoint's answers to the same views through both."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shapes(root / "shapes")
        records = [_pair(root, seed) for seed in range(SEEDS)]
        yield _accuracies(records)
        yield _answers(records[0]["pil"])


def write_shapes(root: Path, train: int = TRAIN) -> None:
    """Shapes as JPEG files in class folders: so many for training, 1,024 for validation."""
    for split, (pixels, classes, _), count in zip(("train", "val"), raw_splits(SIDE), (train, None), strict=True):
        for number, (image, label) in enumerate(zip(pixels[:count], classes[:count], strict=True)):
            path = root / split / f"class{label}" / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=QUALITY)


def _pair(root: Path, seed: int) -> dict[str, Record]:
    """One seed through both decoders, side by side."""
    running = {}
    for decoder in DECODERS:
        words = (
            f"data.root={root / 'shapes'}",
            f"data.decoder={decoder}",
            f"seed={seed}",
            f"run.root={root / decoder}",
        )
        command = [sys.executable, "-m", "repro", "train", *_RECIPE, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running[decoder] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = {}
    for decoder, process in running.items():
        said = process.communicate()[0].decode()
        if process.returncode:
            raise RuntimeError(said)
        (path,) = (root / decoder).rglob(f"seed{seed}-*/result.json")
        found[decoder] = Record(path.parent)
    return found


def _top1(record: Record) -> float:
    result: dict[str, Any] = json.loads((record.path / "result.json").read_text(encoding="utf-8"))
    return float(result["top1_last_pct"])


def _accuracies(records: list[dict[str, Record]]) -> Figure:
    found = {decoder: [_top1(pair[decoder]) for pair in records] for decoder in DECODERS}
    apart = [fast - pil for fast, pil in zip(found["fast"], found["pil"], strict=True)]
    difference = summarise(apart)
    assert difference.mean is not None
    assert difference.low is not None
    assert difference.high is not None
    return Figure(
        f"top-1 on shapes as JPEG files, trained {EPOCHS} epochs through data.decoder=fast less through pil, points",
        "no difference (0 in the interval at 95 %)",
        f"{difference.mean:+.2f}, {difference.low:+.2f} to {difference.high:+.2f} (n = {difference.n} pairs; fast "
        f"{statistics.mean(found['fast']):.2f}, pil {statistics.mean(found['pil']):.2f}, standard deviation over seeds "
        f"{statistics.stdev(found['pil']):.2f})",
        difference.low <= 0 <= difference.high,
        {f"{decoder}_top1_pct": values for decoder, values in found.items()},
    )


def _answers(record: Record) -> Figure:
    evaluated = of_record(record, "last")
    config = record.config()
    logits = {}
    for decoder in DECODERS:
        with torch.inference_mode():
            logits[decoder], labels = logits_of_views(evaluated.model, config, decoder, VIEWS)
    apart = (logits["fast"] - logits["pil"]).abs() / logits["pil"].std()
    same = (logits["fast"].argmax(1) == logits["pil"].argmax(1)).float().mean()
    top1 = {decoder: 100 * float((found.argmax(1) == labels).float().mean()) for decoder, found in logits.items()}
    return Figure(
        f"one checkpoint, {VIEWS} augmented training views, data.decoder=fast against pil: top-1",
        "–",
        f"{top1['fast']:.2f} against {top1['pil']:.2f}; the same guess for {100 * float(same):.2f} % of the views; "
        f"logits {float(apart.mean()):.4f} of their standard deviation apart, the median {float(apart.median()):.4f}",
        None,
        {"top1_pct": top1},
    )


def logits_of_views(model: torch.nn.Module, config: Config, decoder: str, count: int) -> tuple[Tensor, Tensor]:
    """A model's logits for the first so many views of the training images, drawn alike for every decoder; labels."""
    data = config.data.model_copy(update={"decoder": decoder})
    images = load_splits(data, config.recipe, config.model).train
    logits, labels = [], []
    for start in range(0, count, BATCH):
        views = []
        for number in range(start, min(start + BATCH, count)):
            with seeded("view", number):
                view, label = images[number % len(images)]
            views.append(view)
            labels.append(label)
        batch = (
            torch.stack(views)
            if isinstance(views[0], Tensor)
            else UnfinishedBatch.of(views).finished(torch.device("cpu"))
        )
        logits.append(model(batch))
    return torch.cat(logits), torch.tensor(np.array(labels))

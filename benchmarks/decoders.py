"""Whether the fast decoder changes the accuracy: small models trained with each decoder, in pairs with the same seed.

The images are the generated shapes, drawn at twice the model's size and written as JPEG files, so that training images
are decoded, cropped, resized and augmented as those of ImageNet. Both runs of a pair have the same initial weights,
order of images and augmentation draws.
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
from repro.data.uint8_batch import Uint8Batch
from repro.evaluation.sources import from_record
from repro.report.statistics import mean_interval
from repro.runs.record import Record
from repro.seeding import seeded

SIDE, QUALITY, TRAIN, SEEDS, EPOCHS = 64, 90, 2048, 5, 12
DECODERS = ("pil", "fast")
IMAGES, BATCH = 2048, 64
_RECIPE = (
    *("scale=local", "backbone=deit_small", "method=dense", "tracker=none", "data=imagefolder", "data.workers=0"),
    *(f"model.image_size={SIDE // 2}", "model.patch_size=4", "model.in_chans=3", "model.num_classes=8"),
    *("recipe.rand_augment=rand-m9-mstd0.5-inc1", "recipe.random_erasing=0.25", "recipe.eval_crop_pct=0.875"),
    *(f"recipe.epochs={EPOCHS}", f"recipe.evaluate_every_epochs={EPOCHS}", "recipe.mixup=0"),
)


def decoders() -> Iterator[Figure]:
    """Compare the accuracies of the pairs, and one checkpoint's predictions on the same augmented images."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shapes(root / "shapes")
        records = [_pair(root, seed) for seed in range(SEEDS)]
        yield _accuracies(records)
        yield _answers(records[0]["pil"])


def write_shapes(root: Path, train: int = TRAIN) -> None:
    """Write shapes as JPEG files in class folders: `train` for training, 1,024 for validation."""
    for split, (pixels, classes, _), count in zip(("train", "val"), raw_splits(SIDE), (train, None), strict=True):
        for number, (image, label) in enumerate(zip(pixels[:count], classes[:count], strict=True)):
            path = root / split / f"class{label}" / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=QUALITY)


def _pair(root: Path, seed: int) -> dict[str, Record]:
    """Train one seed with both decoders, in parallel."""
    running = {}
    for decoder in DECODERS:
        overrides = (
            f"data.root={root / 'shapes'}",
            f"data.decoder={decoder}",
            f"seed={seed}",
            f"run.root={root / decoder}",
        )
        command = [sys.executable, "-m", "repro", "train", *_RECIPE, *overrides]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running[decoder] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    records = {}
    for decoder, process in running.items():
        output = process.communicate()[0].decode()
        if process.returncode:
            raise RuntimeError(output)
        (path,) = (root / decoder).rglob(f"seed{seed}-*/result.json")
        records[decoder] = Record(path.parent)
    return records


def _top1(record: Record) -> float:
    result: dict[str, Any] = json.loads((record.path / "result.json").read_text(encoding="utf-8"))
    return float(result["top1_last_pct"])


def _accuracies(records: list[dict[str, Record]]) -> Figure:
    top1 = {decoder: [_top1(pair[decoder]) for pair in records] for decoder in DECODERS}
    differences = [fast - pil for fast, pil in zip(top1["fast"], top1["pil"], strict=True)]
    low, high = mean_interval(differences)
    return Figure(
        f"top-1 on shapes as JPEG files, trained {EPOCHS} epochs through data.decoder=fast less through pil, points",
        "no difference (0 in the interval at 95 %)",
        f"{statistics.mean(differences):+.2f}, {low:+.2f} to {high:+.2f} (n = {len(differences)} pairs; fast "
        f"{statistics.mean(top1['fast']):.2f}, pil {statistics.mean(top1['pil']):.2f}, standard deviation over seeds "
        f"{statistics.stdev(top1['pil']):.2f})",
        low <= 0 <= high,
        {f"{decoder}_top1_pct": values for decoder, values in top1.items()},
    )


def _answers(record: Record) -> Figure:
    model, config = from_record(record, "last").model, record.config()
    logits = {}
    for decoder in DECODERS:
        with torch.inference_mode():
            logits[decoder], labels = logits_of_images(model, config, decoder, IMAGES)
    distance = (logits["fast"] - logits["pil"]).abs() / logits["pil"].std()
    same = (logits["fast"].argmax(1) == logits["pil"].argmax(1)).float().mean()
    top1 = {decoder: 100 * float((values.argmax(1) == labels).float().mean()) for decoder, values in logits.items()}
    return Figure(
        f"one checkpoint, {IMAGES} augmented training images, data.decoder=fast against pil: top-1",
        "–",
        f"{top1['fast']:.2f} against {top1['pil']:.2f}; the same prediction for {100 * float(same):.2f} % of the "
        f"images; logits {float(distance.mean()):.4f} of their standard deviation apart, the median "
        f"{float(distance.median()):.4f}",
        None,
        {"top1_pct": top1},
    )


def logits_of_images(model: torch.nn.Module, config: Config, decoder: str, count: int) -> tuple[Tensor, Tensor]:
    """Return a model's logits for `count` augmented training images, and their labels.

    The random draws are the same for all decoders.
    """
    data = config.data.model_copy(update={"decoder": decoder})
    images = load_splits(data, config.recipe, config.model).train
    logits, labels = [], []
    for start in range(0, count, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, count)):
            with seeded("view", number):
                image, label = images[number % len(images)]
            batch.append(image)
            labels.append(label)
        is_float = isinstance(batch[0], Tensor)
        logits.append(model(torch.stack(batch) if is_float else Uint8Batch.of(batch).to_float(torch.device("cpu"))))
    return torch.cat(logits), torch.tensor(np.array(labels))

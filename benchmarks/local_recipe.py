"""Learning rates of the local scale, compared on held-out training images, never on the test images.

Each dense backbone trains with its local recipe on three quarters of the training images, for about as many updates as
on all of them, and is evaluated on the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.model_selection import train_test_split

from benchmarks.figures import Figure
from repro.config.compose import compose
from repro.config.schedule import training_length
from repro.data.splits import Splits, load_splits
from repro.distributed import World
from repro.tracking.sinks import Sinks
from repro.training.loop import RunContext, Trainer

BACKBONES = ("deit_tiny", "deit_small", "deit_base")
FACTORS = (0.5, 1.0, 2.0)  # of the recipe's learning rate
HELD_OUT = 0.25


def learning_rates() -> Iterator[Figure]:
    """Measure the accuracy on held-out training images at half, once and twice the recipe's learning rate."""
    torch.set_num_threads(1)  # as `scale.cpu_threads`
    for backbone in BACKBONES:
        words = [f"backbone={backbone}", "scale=local", "tracker=none"]
        recipe = compose(words).recipe
        found = {recipe.lr * factor: _accuracy([*words, f"recipe.lr={recipe.lr * factor:g}"]) for factor in FACTORS}
        best = max(found, key=lambda rate: found[rate])
        yield Figure(
            f"{backbone}: top-1 on held-out training images at the local recipe's peak learning rate {recipe.lr:g}",
            "–",
            f"{found[recipe.lr]:.1f} % ({', '.join(f'{rate:g}: {top1:.1f}' for rate, top1 in found.items())})",
            None,
            {"best": best, "top1_pct": {f"{rate:g}": round(top1, 2) for rate, top1 in found.items()}},
        )


def _accuracy(words: list[str]) -> float:
    whole = compose(words)
    splits = _split(load_splits(whole.data, whole.recipe, whole.model))
    updates = training_length(whole, whole.data.images_per_epoch or 0).updates
    epochs = round(updates / (len(splits.train) // whole.recipe.global_batch))
    config = compose([*words, f"recipe.epochs={epochs}", "data.images_per_epoch=null"])
    with tempfile.TemporaryDirectory() as folder:
        world = World(0, 1, torch.device("cpu"))
        context = RunContext(world, Sinks([]), Path(folder), lambda update, updates: None, lambda: None)
        return Trainer(config, splits, context).run()["top1_last_pct"] or 0.0


def _split(splits: Splits) -> Splits:
    """Replace the test images with a stratified quarter of the training images, which are removed from training."""
    labels = splits.train.labels
    kept, held_out = train_test_split(range(len(labels)), test_size=HELD_OUT, random_state=0, stratify=labels.numpy())
    return replace(splits, train=splits.train.take(torch.tensor(kept)), test=splits.train.take(torch.tensor(held_out)))

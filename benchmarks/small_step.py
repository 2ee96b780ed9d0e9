"""An update at local scale relative to a bare loop: what the harness adds to a small training step.

The bare loop has the same model, loss, optimizer and images, and nothing else: no named random streams, schedule, EMA,
masks, progress or log. Times are CPU times of one thread, which other processes hardly affect.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from timm.optim import create_optimizer_v2

from benchmarks.figures import Figure, in_turn, milliseconds
from repro.config.compose import compose
from repro.data.in_memory import ImagesInMemory
from repro.data.splits import load_splits
from repro.distributed import World
from repro.models.backbone import build_model
from repro.tracking.sinks import Sinks
from repro.training.loop import RunContext, Trainer

BACKBONES, METHODS = ("deit_tiny", "deit_small", "deit_base"), ("dense", "svite")
MOST, ROUNDS = 1.1, 300


def small_steps() -> Iterator[Figure]:
    """Time updates of dense and SViTE training on the digits, in turn with those of a bare loop."""
    torch.set_num_threads(1)  # as `scale.cpu_threads`
    for backbone, method in itertools.product(BACKBONES, METHODS):
        yield _against_bare(backbone, method)


def _against_bare(backbone: str, method: str) -> Figure:
    config = compose([f"backbone={backbone}", f"method={method}", "scale=local", "tracker=none"])
    splits = load_splits(config.data, config.recipe, config.model)
    with tempfile.TemporaryDirectory() as folder:
        world = World(0, 1, torch.device("cpu"))
        context = RunContext(world, Sinks([]), Path(folder), lambda update, updates: None, lambda: None)
        trainer = Trainer(config, splits, context)
        trainer.state.model.train()
        batches = itertools.chain.from_iterable(trainer.loader.batches(epoch) for epoch in itertools.count())
        assert isinstance(splits.train, ImagesInMemory)
        bare = _bare_loop(trainer, splits.train)
        pairs = in_turn(lambda: trainer.update(batches), bare, ROUNDS, time.thread_time)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return Figure(
        f"{backbone}/{method} at local scale, batch {config.recipe.global_batch}: an update, times a bare loop's time",
        f"at most {MOST:g}",
        f"{ratio:.3f} ({1000 * statistics.median(theirs for _, theirs in pairs):.2f} ms bare)",
        ratio <= MOST,
        {
            "ours_ms": milliseconds([ours for ours, _ in pairs]),
            "bare_ms": milliseconds([theirs for _, theirs in pairs]),
        },
    )


def _bare_loop(trainer: Trainer, data: ImagesInMemory) -> Callable[[], None]:
    """Return a step of a bare loop over random images."""
    recipe, loss = trainer.recipe, trainer.state.optimization.loss
    model = build_model(trainer.config.model, recipe.drop_path, 0).train()
    options = {"lr": recipe.peak_lr, "weight_decay": recipe.weight_decay, "fused": True}
    optimizer = create_optimizer_v2(model, opt=recipe.optimizer, **options)

    def step() -> None:
        chosen = torch.randint(len(data.labels), (recipe.global_batch,))
        optimizer.zero_grad()
        loss(model(data.images[chosen]), data.labels[chosen]).backward()
        optimizer.step()

    return step

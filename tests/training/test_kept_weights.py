"""A run keeps the weights of the middle of its training, for runs that prune them there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from report_records import write_record

from repro.config.compose import compose
from repro.data.splits import load_splits
from repro.distributed import World
from repro.errors import UserError
from repro.runs.record import Record
from repro.tables.loader import load_table
from repro.tracking.sinks import Sinks
from repro.training import checkpoint
from repro.training.inputs import load_inputs
from repro.training.loop import RunContext, Trainer

CPU = torch.device("cpu")
WORDS = ["backbone=deit_tiny", "scale=smoke", "data.limit_train=128", "tracker=none"]


def test_the_weights_of_the_share_are_kept_and_those_of_the_end_are_others(tmp_path: Path) -> None:
    config = compose([*WORDS, "run.keep_weights_after=0.5"])
    context = RunContext(World(0, 1, CPU), Sinks([]), tmp_path, lambda update, updates: None, lambda: None)
    trainer = Trainer(config, load_splits(config.data, config.recipe, config.model), context)
    batches = iter(trainer.loader.batches(0))
    trainer.state.model.train()
    halfway = trainer.length.updates_of(0.5)
    assert (halfway, trainer.length.updates) == (2, 4)
    for _ in range(halfway):
        trainer.update(batches)
    path = checkpoint.weights_path(tmp_path, halfway)
    saved = checkpoint.load(path, CPU)
    assert saved is not None
    for name, value in trainer.state.model.state_dict().items():
        assert torch.equal(saved["model"][name], value)
    assert checkpoint.load(checkpoint.weights_path(tmp_path, 1), CPU) is None
    assert checkpoint.load_latest(tmp_path, CPU) is None, "no checkpoint to resume from"
    path.write_bytes(b"damaged")
    assert checkpoint.load(path, CPU) is None


def test_one_shot_pruning_has_as_many_updates_as_dense_at_local_scale_only() -> None:
    for scale, after in (("local", 0.5), ("smoke", 0.5), ("paper", 1.0), ("mini", 1.0)):
        for method in ("omp", "tp", "ssp"):
            config = compose([f"scale={scale}", f"method={method}", "data.root=/data"])
            assert config.weights_after == after
            total = after * config.recipe.epochs + config.effective_recipe.epochs
            assert total / config.recipe.epochs == after + 0.5
    assert compose(["method=gmp"]).weights_after == 1


def test_weights_that_were_not_kept_are_one_line(tmp_path: Path) -> None:
    dense = compose([*WORDS, f"run.root={tmp_path}"])
    origin = Record(tmp_path / "dense")
    origin.create(dense, "table1", "deit_tiny/dense")
    own = Record(tmp_path / "omp")
    config = compose([*WORDS, "method=omp", f"run.root={tmp_path}"])
    own.create(config, "table1", "deit_tiny/omp-30", origin.path)
    with pytest.raises(UserError, match="not finished"):
        load_inputs(own, config, CPU)
    row = next(row for row in load_table("table1").rows if row.id == "deit_tiny/dense")
    finished = write_record(tmp_path / "runs", row, "smoke", 0, updates=4)  # without weights
    pruned = Record(tmp_path / "omp2")
    pruned.create(config, "table1", "deit_tiny/omp-30", finished.path)
    with pytest.raises(UserError, match=r"after update 2, which were not saved; .*run\.keep_weights_after=0\.5"):
        load_inputs(pruned, config, CPU)

"""What a training depends on, and what it does not: stops, workers, seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import METHODS, Kept, same, small_config, trainer

from repro.interruption import Interrupted


@pytest.mark.parametrize("name", ["dense", "s2vite_plus"])
def test_a_run_stopped_after_every_single_update_is_bit_identical(name: str, tmp_path: Path) -> None:
    config = small_config(*METHODS[name])
    whole, pieces = Kept(), Kept()
    straight = trainer(config, tmp_path / "whole", kept=whole)
    straight.run()
    for update in range(1, 13):
        with pytest.raises(Interrupted):
            trainer(config, tmp_path / "pieces", kept=pieces, stop_at=update).run()
    resumed = trainer(config, tmp_path / "pieces", kept=pieces)
    resumed.run()
    left, right = straight.state.state_dict(), resumed.state.state_dict()
    for key in left.keys() - {"wall_s"}:
        assert same(left[key], right[key]), key
    for kind in ("train", "eval", "masks"):
        assert whole.of(kind) == pieces.of(kind)


def test_workers_do_not_change_a_training(tmp_path: Path) -> None:
    alone, helped = (small_config("method=svite", f"data.workers={workers}") for workers in (0, 2))
    assert alone.signature == helped.signature
    states = []
    for config, name in ((alone, "alone"), (helped, "helped")):
        run = trainer(config, tmp_path / name)
        run.run()
        states.append(run.state.state_dict())
    assert same(states[0]["model"], states[1]["model"])
    assert same(states[0]["parts"], states[1]["parts"])


def test_a_seed_changes_everything_that_is_drawn(tmp_path: Path) -> None:
    runs = [trainer(small_config("method=svite", f"seed={seed}"), tmp_path / str(seed)) for seed in (0, 1)]
    weights = [run.state.model.state_dict()["blocks.0.attn.proj.weight"] for run in runs]
    assert not torch.equal(weights[0] != 0, weights[1] != 0)
    assert not torch.equal(weights[0], weights[1])
    batches = [next(run.loader.batches(0)) for run in runs]
    assert not torch.equal(batches[0][0], batches[1][0])

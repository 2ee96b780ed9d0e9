"""A run that was stopped at any update and resumed ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from trainings import metrics, tensors, tiny, trainer

from repro.training.interruption import Interrupted

METHODS = ["dense", "svite", "s2vite", "svite_plus", "s2vite_plus"]
UPDATES = 8  # 2 epochs of 4


def interrupted_everywhere(folder: Path, overrides: list[str], stops: list[int]) -> object:
    """Train with a stop after each of `stops` updates; the state at the end."""
    config = tiny(*overrides)
    for stop in stops:
        asked = itertools.count(1)
        run = trainer(
            config, folder, lambda asked=asked, stop=stop, run=None: "a test" if next(asked) >= stop else None
        )
        begun = run.resumed_from
        with pytest.raises(Interrupted):
            run.run()
        assert run.state.update > begun
    run = trainer(config, folder)
    assert run.resumed_from > 0
    run.run()
    return run.state.state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_bit_identical(method: str, tmp_path: Path) -> None:
    overrides = [f"method={method}", "run.log_every_updates=3"]
    config = tiny(*overrides)
    whole = trainer(config, tmp_path / "whole")
    result = whole.run()
    # One update at a time: stopped after every single update, in the middle of epochs and at their ends.
    state = interrupted_everywhere(tmp_path / "pieces", overrides, [1] * (UPDATES - 1))
    expected, got = tensors(whole.state.state_dict()), tensors(state)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    assert metrics(tmp_path / "pieces", config) == metrics(tmp_path / "whole", config)
    assert result["updates"] == UPDATES


def test_workers_do_not_change_a_training(tmp_path: Path) -> None:
    alone, helped = tiny("method=svite"), tiny("method=svite", "data.workers=2")
    assert alone.signature == helped.signature
    results = []
    for config, name in ((alone, "alone"), (helped, "helped")):
        run = trainer(config, tmp_path / name)
        run.run()
        results.append(tensors(run.state.state_dict()))
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


def test_a_seed_changes_everything_that_is_drawn(tmp_path: Path) -> None:
    first, second = (trainer(tiny("method=svite", f"seed={seed}"), tmp_path) for seed in (0, 1))
    a, b = tensors(first.state.state_dict()), tensors(second.state.state_dict())
    assert not torch.equal(a["/model/blocks.0.attn.proj.weight"], b["/model/blocks.0.attn.proj.weight"])
    mask = "/parts/0/masks/blocks.0.attn.qkv"
    assert not torch.equal(a[mask], b[mask])

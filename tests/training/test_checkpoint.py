"""Checkpoints: the last two, and a damaged one is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repro.training.checkpoint import load_latest, save

CPU = torch.device("cpu")


def state(update: int) -> dict[str, object]:
    return {"update": update, "weights": torch.full((100,), float(update))}


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for update in (5, 10, 15):
        save(tmp_path, update, state(update))
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["update-000000010.pt", "update-000000015.pt"]
    assert len(list(tmp_path.iterdir())) == 4
    latest = load_latest(tmp_path, CPU)
    assert latest is not None
    assert latest["update"] == 15
    assert torch.equal(latest["weights"], torch.full((100,), 15.0))


def test_nothing_there(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nowhere", CPU) is None


def test_all_damaged_is_a_start_from_scratch_with_a_warning(tmp_path: Path) -> None:
    path = save(tmp_path, 10, state(10))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert load_latest(tmp_path, CPU) is None

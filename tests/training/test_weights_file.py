"""Finished weights without their zeros: equal after reading, and smaller."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.training.weights_file import read_weights, write_weights


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), density=st.floats(0, 1), shape=st.lists(st.integers(0, 7), max_size=3))
def test_round_trip(seed: int, density: float, shape: list[int], tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
    state = {"blocks.0.weight": weight, "half": weight.bfloat16(), "count": torch.tensor(3)}
    write_weights(path, state)
    read = read_weights(path)
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_half_the_weights_take_little_more_than_half_the_file(tmp_path: Path) -> None:
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    write_weights(tmp_path / "dense.safetensors", {"w": weight})
    write_weights(tmp_path / "half.safetensors", {"w": torch.where(weight > 0, weight, 0.0)})
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "dense")]
    assert sizes[0] / sizes[1] < 0.55

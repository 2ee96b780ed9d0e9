"""Whatever bytes the files of an export hold: a model or one line, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_input import answer, damaged, edited, random_input
from small_runs import small_config

from repro.evaluation.sources import from_export
from repro.inference.export import DESCRIPTION, WEIGHTS, export, reading_export
from repro.models.backbone import build_model


@pytest.mark.parametrize("name", [DESCRIPTION, WEIGHTS])
def test_files_of_an_export(tmp_path: Path, name: str) -> None:
    config = small_config()
    export(config, build_model(config.model, 0.0, 0).state_dict(), tmp_path / "out", {"row": "mine"})
    whole = (tmp_path / "out" / name).read_bytes()
    assert from_export(tmp_path / "out", "measured").name.startswith("mine as exported")

    @given(st.one_of(damaged(whole), st.binary(max_size=50), edited(whole)))
    @random_input
    def check(content: bytes) -> None:
        (tmp_path / "out" / name).write_bytes(content)
        answer(lambda: from_export(tmp_path / "out", "measured"))

    check()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()])
def test_an_export_is_not_damaged_because_memory_is_full(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), reading_export(tmp_path):
        raise error

"""`repro train` beside somebody who is at the same run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from repro.composition import compose
from repro.errors import UserError
from repro.launch.by_hand import TABLE, train
from repro.runs.record import record_for


def test_a_run_that_somebody_is_at_is_left_as_it_is(tmp_path: Path) -> None:
    words = ["backbone=deit_tiny", "method=dense", "scale=smoke", "tracker=none", f"run.root={tmp_path}"]
    config = compose(words)
    record = record_for(tmp_path, config, TABLE, "deit_tiny/dense")
    record.create(config, TABLE, "deit_tiny/dense")
    record.set_status(record.status().moved("running"))
    before = (record.path / "config.yaml").read_bytes()
    with (
        FileLock(record.path / "lock"),
        pytest.raises(UserError, match="somebody is at this run \\(a process holds its lock\\)"),
    ):
        train([*words, "run.checkpoint_every_s=7"], Console(file=io.StringIO()))
    assert (record.path / "config.yaml").read_bytes() == before

"""Real mp4 files, whole and broken, for tests of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro.config import Config
from repro.config.compose import compose
from repro.data.splits import Splits, load_splits

pytest.importorskip("av")

from repro.data.video_decoding import write_video

Frames = np.ndarray[Any, Any]


def frames(count: int, height: int = 24, width: int = 32, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write(path: Path, count: int = 8, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames(count, seed=seed), rate=8)
    return path


def cut(path: Path) -> Path:
    """The file's first two thirds: its header promises more than there is."""
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    return path


def zeroed(path: Path) -> Path:
    """The file with the middle third of its bytes at zero: its header and its first frame are whole."""
    raw = path.read_bytes()
    third = len(raw) // 3
    path.write_bytes(raw[:third] + bytes(third) + raw[2 * third :])
    return path


def kinetics_config(root: Path, *overrides: str) -> Config:
    return compose(
        [
            *("backbone=timesformer_base", "data=kinetics400", f"data.root='{root}'", "data.clip.frame_step=2"),
            *("model.num_classes=2", *overrides),
        ]
    )


def load(root: Path, *overrides: str, resume_fingerprint: str | None = None) -> Splits:
    config = kinetics_config(root, *overrides)
    return load_splits(config.data, config.recipe, config.model, resume_fingerprint)

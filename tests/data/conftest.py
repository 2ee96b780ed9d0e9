"""Small folders of real JPEG files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from image_folders import MakeImages
from PIL import Image


@pytest.fixture
def make_images() -> MakeImages:
    """Write one 48x40 JPEG file of noise for every name, each another picture."""
    generator = np.random.default_rng(0)

    def make(folder: Path, names: Iterable[str]) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            coarse.resize((48, 40)).save(path, format="JPEG")

    return make


@pytest.fixture
def flowers(tmp_path: Path, make_images: MakeImages) -> Path:
    """Two classes, 6 + 4 training images and 2 + 1 validation images."""
    root = tmp_path / "flowers, dried"
    make_images(root / "train", [f"aster/{i}.jpg" for i in range(6)] + [f"rose/{i}.JPEG" for i in range(4)])
    make_images(root / "val", ["aster/a.jpg", "aster/b.jpg", "rose/a.jpg"])
    return root


@pytest.fixture
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    """Two classes; of the training videos one is cut, one has one frame, one is text and one is empty."""
    from video_files import cut, write

    root = tmp_path / "kinetics, part"
    for number in range(4):
        write(root / f"train/tap dancing/{number}.mp4", seed=number)
        write(root / f"train/archery/{number}.mp4", seed=10 + number)
    cut(write(root / "train/archery/cut.mp4"))
    write(root / "train/archery/flash.mp4", count=1)
    (root / "train/archery/text.mp4").write_text("404 not found")
    (root / "train/tap dancing/empty.mp4").write_bytes(b"")
    (root / "train/tap dancing/notes.txt").write_text("not listed")
    for name in ("archery", "tap dancing"):
        write(root / f"val/{name}/v.mp4", count=12, seed=20)
    return root

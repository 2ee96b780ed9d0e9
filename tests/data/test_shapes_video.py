"""Moving shapes: drawn, written as mp4 files once, and read back as they were drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from repro.config.compose import compose
from repro.data import shapes_video
from repro.data.clips import Clips
from repro.data.data_sets import DATA_SETS
from repro.data.shapes_drawing import NAMES
from repro.data.splits import load_splits
from repro.data.video_decoding import read_frames
from repro.errors import UserError

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_SETS, "shapes_video", replace(DATA_SETS["shapes_video"], images=(32, 16)))


@pytest.mark.usefixtures("few")
def test_moving_shapes_are_read_back_as_they_were_drawn(tmp_path: Path) -> None:
    config = compose(
        ["backbone=timesformer_base", "data=shapes_video", f"data.root={tmp_path}", "data.images_per_epoch=32"]
    )
    splits = load_splits(config.data, config.recipe, config.model)
    assert (len(splits.train), len(splits.test), splits.skipped) == (32, 16, ())
    assert np.bincount(splits.train.labels).tolist() == [4] * 8
    assert isinstance(splits.test, Clips)
    pixels, classes, masks = shapes_video.videos(1, range(16))
    order = np.lexsort((np.arange(16), [sorted(NAMES).index(NAMES[kind]) for kind in classes]))
    for place, number in enumerate(order):
        path = Path(splits.test.files.name(place))
        assert np.array_equal(read_frames(path, range(8)), pixels[number])
    assert masks.any((2, 3)).all()
    # The object moves by 7 pixels, up or down, and stays in sight.
    rows = np.array([[np.flatnonzero(mask.any(1)).mean() for mask in video] for video in masks])
    assert abs(rows[:, -1] - rows[:, 0]) == pytest.approx(7, abs=1.5)
    assert set(np.sign(rows[:8, -1] - rows[:8, 0])) == {-1.0}
    assert set(np.sign(rows[8:, -1] - rows[8:, 0])) == {1.0}
    assert not masks[:, :, [0, -1]].any()


@pytest.mark.usefixtures("few")
def test_moving_shapes_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, digest = shapes_video.cached_videos(tmp_path)
    monkeypatch.setattr(shapes_video, "write_video", lambda *_: pytest.fail("written again"))
    assert shapes_video.cached_videos(tmp_path) == (folder, digest)
    assert [path.name for path in tmp_path.glob("[!.]*")] == [folder.name]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("how", ["zeroed", "gone", "exchanged"])
def test_moving_shapes_that_were_damaged_are_written_anew(tmp_path: Path, how: str) -> None:
    folder, digest = shapes_video.cached_videos(tmp_path)
    one, other = sorted(folder.glob("val/*/*.mp4"))[:2]
    before = one.read_bytes()
    if how == "gone":
        one.unlink()
    else:
        one.write_bytes(bytes(len(before)) if how == "zeroed" else other.read_bytes())
    assert shapes_video.cached_videos(tmp_path) == (folder, digest)
    assert np.array_equal(read_frames(one, range(8)), shapes_video.videos(1, range(16))[0][int(one.stem)])


@pytest.mark.usefixtures("few")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        UserError, match=r"file/sub: videos cannot be written there \(Not a directory\); set data\.root"
    ):
        shapes_video.cached_videos(tmp_path / "file/sub")


@pytest.mark.usefixtures("few")
def test_a_writing_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes_video, "write_video", stop)
    with pytest.raises(KeyboardInterrupt):
        shapes_video.cached_videos(tmp_path)
    assert list(tmp_path.glob("[!.]*")) + list(tmp_path.glob("*/")) == []

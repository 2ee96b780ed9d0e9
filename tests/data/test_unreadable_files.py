"""Files that become unreadable after they were listed: what replaces them, and how many are tolerated."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
from image_folders import folder_config
from video_files import load, write, zeroed

from repro.data.clips import Clips
from repro.data.loader import TrainLoader
from repro.data.pack import pack
from repro.data.splits import load_splits
from repro.data.uint8_batch import Uint8Image
from repro.data.unreadable_files import NOT_COUNTED
from repro.errors import UserError
from repro.seeding import seeded

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "text", "removed"])
def test_an_unreadable_image_is_replaced_by_the_next_of_its_class(
    flowers: Path, workers: int, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    config = folder_config(flowers)
    splits = load_splits(config.data, config.recipe, config.model)
    before = [splits.test[index][0] for index in range(3)]
    path = flowers / "train/rose/3.JPEG"
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-200] if damage == "cut" else b"not an image")
    loader = TrainLoader(splits.train, global_batch=10, micro_batch=10, seed=0, repeats=1, workers=workers)
    with closing(loader.batches(0)) as batches:
        images, labels = next(batches)
    assert (images.shape, sorted(labels.tolist())) == ((10, 3, 32, 32), [0] * 6 + [1] * 4)
    warning = capfd.readouterr().err
    assert f"{path}: cannot be " in warning
    assert warning.endswith("; the next file of its class replaces it\n")
    assert [split.marks.nonzero().flatten().tolist() for split in splits.unreadable] == [[9], []]
    # The test images are replaced too, but not counted twice: "aster" has two, and the first follows the last.
    (flowers / "val/aster/b.jpg").write_bytes(b"")
    for index, (same_as, label) in enumerate([(0, 0), (0, NOT_COUNTED), (2, 1)]):
        image, counted = splits.test[index]
        assert (image.equal(before[same_as]), counted) == (True, label)
    assert capfd.readouterr().err.endswith("; evaluations leave it out\n")


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_resumed_run_has_the_same_images_at_the_same_positions(
    flowers: Path, tmp_path: Path, damage: str, is_packed: bool
) -> None:
    config = folder_config(flowers)
    splits = load_splits(config.data, config.recipe, config.model)
    test = [splits.test[index][0] for index in range(3)]
    path = flowers / "train/aster/2.jpg"
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-200])
    data = config.data
    if is_packed:
        pack(flowers, tmp_path / "shards", 100, lambda line: None)
        data = data.model_copy(update={"root": str(tmp_path / "shards")})
    resumed = load_splits(data, config.recipe, config.model, splits.fingerprint)
    assert (resumed.fingerprint, resumed.class_names) == (splits.fingerprint, splits.class_names)
    assert [each.marks.nonzero().flatten().tolist() for each in resumed.unreadable] == [[2], []]
    assert resumed.train.labels.equal(splits.train.labels)
    for index in range(10):  # the same as if the run had not stopped
        with seeded("augment", index):
            image, label = resumed.train[index]
        with seeded("augment", index):
            expected, _ = splits.train[index]
        assert isinstance(image, Uint8Image)
        assert isinstance(expected, Uint8Image)
        assert (image.pixels.equal(expected.pixels), label) == (True, int(splits.train.labels[index]))
    assert all(resumed.test[index][0].equal(test[index]) for index in range(3))


@pytest.mark.parametrize("change", ["two removed", "a new one", "another image", "other contents"])
def test_a_run_is_not_resumed_on_other_images(flowers: Path, change: str) -> None:
    config = folder_config(flowers)
    before = load_splits(config.data, config.recipe, config.model).fingerprint
    first, second = flowers / "train/aster/0.jpg", flowers / "train/aster/1.jpg"
    if change == "two removed":
        first.unlink()
        second.unlink()
    elif change == "a new one":
        shutil.copy(first, first.with_name("9.jpg"))
    elif change == "another image":
        first.write_bytes((flowers / "train/rose/0.JPEG").read_bytes() + b"x")
    else:
        first.write_bytes(first.read_bytes()[:-1] + b"x")
    assert load_splits(config.data, config.recipe, config.model, before).fingerprint != before


def test_more_unreadable_images_than_tolerated_end_the_run(flowers: Path) -> None:
    config = folder_config(flowers)
    train = load_splits(config.data, config.recipe, config.model).train
    for name in ("aster/0.jpg", "rose/3.JPEG"):
        (flowers / "train" / name).write_bytes(b"")
    train[0]
    with pytest.raises(UserError, match=r"rose/3\.JPEG: .*; 2 files have become unreadable .*, at most 1 may"):
        train[9]


def test_a_class_without_a_readable_image_ends_the_run(flowers: Path) -> None:
    (flowers / "val/rose/a.jpg").write_bytes(b"")
    config = folder_config(flowers)
    with pytest.raises(UserError, match="no file of class 1 can be read any more"):
        load_splits(config.data, config.recipe, config.model).test[2]


@pytest.mark.parametrize("how", ["broken", "gone"])
def test_an_unreadable_video_is_replaced_by_the_next_of_its_class(
    kinetics: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    splits = load(kinetics)
    before = [splits.test.take(torch.arange(2))[index][0] for index in range(2)]
    train = splits.train
    assert isinstance(train, Clips)
    clips = train.as_kind("clip1")
    whole = [clips[index][0] for index in range(8)]
    lost = kinetics / "train/archery/3.mp4"
    if how == "broken":
        zeroed(lost)
    else:
        lost.unlink()
    now = [clips[index][0] for index in range(8)]
    assert now[3].equal(whole[0])  # the first video of the class follows the last
    assert [index for index in range(8) if not now[index].equal(whole[index])] == [3]
    assert (clips[3][1], train[3][1]) == (NOT_COUNTED, 0)
    warning = capfd.readouterr().err
    assert warning.count("archery/3.mp4") == 1
    assert [int(split.marks.sum()) for split in splits.unreadable] == [1, 0]
    # A resumed run has the same videos at the same positions, though one of them is not usable any more.
    anew = load(kinetics)
    assert anew.fingerprint != splits.fingerprint
    assert len(anew.train) == 7
    again = load(kinetics, resume_fingerprint=splits.fingerprint)
    assert (again.fingerprint, len(again.train), len(again.skipped)) == (splits.fingerprint, 8, 4)
    assert [int(split.marks.sum()) for split in again.unreadable] == [1, 0]
    assert isinstance(again.train, Clips)
    assert all(again.train.as_kind("clip1")[index][0].equal(now[index]) for index in range(8))
    assert all(again.test[index][0].equal(before[index]) for index in range(2))


def test_more_unreadable_videos_than_tolerated_end_the_run(kinetics: Path) -> None:
    splits = load(kinetics)
    for name in ("archery/0.mp4", "tap dancing/3.mp4"):
        (kinetics / "train" / name).unlink()
    splits.train[0]
    with pytest.raises(UserError, match=r"tap dancing/3\.mp4: .*; 2 files have become unreadable .*, at most 1 may"):
        splits.train[7]
    assert load(kinetics, resume_fingerprint=splits.fingerprint).fingerprint != splits.fingerprint


def test_a_video_that_has_changed_is_not_replaced(kinetics: Path) -> None:
    splits = load(kinetics)
    write(kinetics / "train/archery/0.mp4", count=11)
    assert load(kinetics, resume_fingerprint=splits.fingerprint).fingerprint != splits.fingerprint


def test_loader_processes_mark_unreadable_videos(kinetics: Path) -> None:
    splits = load(kinetics)
    (kinetics / "train/archery/1.mp4").unlink()
    loader = TrainLoader(splits.train, global_batch=8, micro_batch=8, seed=0, repeats=1, workers=1)
    with closing(loader.batches(0)) as batches:
        next(batches)
    assert [split.marks.nonzero().flatten().tolist() for split in splits.unreadable] == [[1], []]

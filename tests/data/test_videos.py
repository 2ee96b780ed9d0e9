"""Real mp4 files, whole and broken, in the layouts that people have Kinetics in."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.composition import compose
from repro.data.loader import TrainLoader
from repro.data.splits import Splits, load_splits, skipped_line
from repro.errors import UserError

pytest.importorskip("av")

import av

from repro.data import shapes_video, video_listing
from repro.data.clips import Clips, frames_of_clip, scaled, spatial_crops
from repro.data.shapes_drawing import NAMES
from repro.data.video_decoding import Inspected, UnreadableError, inspect, read_frames, write_video

Frames = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


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


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    """Two classes; of the training videos one is cut, one has one frame, one is text and one is empty."""
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


def load(root: Path, *overrides: str, began_with: str | None = None) -> Splits:
    config = compose(
        [
            *("backbone=timesformer_base", "data=kinetics400", f"data.root='{root}'", "data.clip.frame_step=2"),
            *("model.num_classes=2", *overrides),
        ]
    )
    return load_splits(config.data, config.recipe, config.model, began_with)


def test_the_pixels_of_a_file_are_those_that_were_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a b.mp4", count=11)
    assert inspect(path) == Inspected(11)
    assert np.array_equal(read_frames(path, range(11)), frames(11))
    assert np.array_equal(read_frames(path, [2, 2, 9]), frames(11)[[2, 2, 9]])


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    assert inspect(tmp_path / "text.mp4").fault.startswith("cannot be decoded (Invalid data")
    assert inspect(tmp_path / "none.mp4").fault == "cannot be decoded (No such file or directory)"
    found = inspect(cut(write(tmp_path / "cut.mp4", count=9)))
    assert found.fault == f"cut short: {found.frames} of 9 frames"
    assert 0 < found.frames < 9


def zeroed(path: Path) -> Path:
    """The file with the middle third of its bytes at zero: its header and its first frame are whole."""
    raw = path.read_bytes()
    third = len(raw) // 3
    path.write_bytes(raw[:third] + bytes(third) + raw[2 * third :])
    return path


def test_a_file_damaged_in_its_middle_is_told_from_a_whole_one(tmp_path: Path) -> None:
    found = inspect(zeroed(write(tmp_path / "z.mp4", count=30)))
    assert 0 < found.frames < 30
    assert found.fault.startswith(f"cannot be decoded after {found.frames} frames (Invalid data")


@pytest.mark.parametrize("key_frames", ["every", "first"])
def test_a_video_that_was_cut_without_encoding_it_again_has_the_frames_that_are_seen(
    tmp_path: Path, key_frames: str
) -> None:
    whole, piece = tmp_path / "whole.mp4", tmp_path / "piece.mp4"
    group = {"g": "1" if key_frames == "every" else "100", "sc_threshold": "0", "bf": "0"}
    with av.open(whole, "w") as out:
        stream = out.add_stream("libx264", rate=10, options=group)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for frame in frames(30):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    with av.open(whole) as source, av.open(piece, "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                start = round(0.7 / packet.time_base)  # 7 of 30 frames: ffmpeg -ss 0.7 -c copy
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copied
                out.mux(packet)
    assert inspect(whole) == Inspected(30)
    assert inspect(piece) == Inspected(23)
    assert read_frames(piece, [0, 22]).equal(read_frames(whole, [7, 29]))


def test_titles_in_other_encodings_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "titled.mp4"
    with av.open(path, "w") as out:
        out.metadata["title"] = "MARKER"
        stream = out.add_stream("libx264rgb", rate=8, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        for frame in frames(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    raw = path.read_bytes()
    assert raw.count(b"MARKER") == 1
    path.write_bytes(raw.replace(b"MARKER", b"\xff\xfe\xe9\xe8\xff\xff"))
    assert inspect(path) == Inspected(4)
    assert np.array_equal(read_frames(path, range(4)), frames(4))


def test_a_file_that_changes_later_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = cut(write(tmp_path / "cut.mp4", count=9))
    with pytest.raises(UnreadableError, match=r"cut\.mp4: (no frame 8|cannot be decoded)"):
        read_frames(path, [8])


@pytest.mark.parametrize("how", ["broken", "gone"])
def test_a_video_that_is_lost_while_a_run_trains_is_replaced_by_the_next_of_its_class(
    kinetics: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    splits = load(kinetics)
    before = [splits.test.take(torch.arange(2))[index][0] for index in range(2)]
    train = splits.train
    assert isinstance(train, Clips)
    clips = train.as_("clip1")
    whole = [clips[index][0] for index in range(8)]
    lost = kinetics / "train/archery/3.mp4"
    if how == "broken":
        zeroed(lost)
    else:
        lost.unlink()
    now = [clips[index][0] for index in range(8)]
    assert now[3].equal(whole[0])  # the class begins again behind its last
    assert [index for index in range(8) if not now[index].equal(whole[index])] == [3]
    assert clips[3][1] == 0
    said = capfd.readouterr().err
    assert said.count("archery/3.mp4") == 1
    assert "the next video of its class is taken for it" in said
    assert [int(some.marks.sum()) for some in splits.lost] == [1, 0]
    # A run that goes on has the same videos at the same places, though now one of them is not listed.
    anew = load(kinetics)
    assert anew.fingerprint != splits.fingerprint
    assert len(anew.train) == 7
    again = load(kinetics, began_with=splits.fingerprint)
    assert (again.fingerprint, len(again.train), len(again.skipped)) == (splits.fingerprint, 8, 4)
    assert [int(some.marks.sum()) for some in again.lost] == [1, 0]
    assert isinstance(again.train, Clips)
    assert all(again.train.as_("clip1")[index][0].equal(now[index]) for index in range(8))
    assert all(again.test[index][0].equal(before[index]) for index in range(2))


def test_more_than_a_few_lost_videos_end_the_run(kinetics: Path) -> None:
    splits = load(kinetics)
    for name in ("archery/0.mp4", "tap dancing/3.mp4"):
        (kinetics / "train" / name).unlink()
    splits.train[0]
    with pytest.raises(UserError, match=r"tap dancing/3\.mp4: .*; 2 videos have broken since .*, at most 1 may"):
        splits.train[7]
    assert load(kinetics, began_with=splits.fingerprint).fingerprint != splits.fingerprint


def test_a_video_that_has_become_another_is_no_lost_one(kinetics: Path) -> None:
    splits = load(kinetics)
    write(kinetics / "train/archery/0.mp4", count=11)
    assert load(kinetics, began_with=splits.fingerprint).fingerprint != splits.fingerprint


def test_lost_videos_are_marked_by_loader_processes(kinetics: Path) -> None:
    splits = load(kinetics)
    (kinetics / "train/archery/1.mp4").unlink()
    loader = TrainLoader(splits.train, global_batch=8, micro_batch=8, seed=0, repeats=1, workers=1)
    with closing(loader.batches(0)) as batches:
        next(batches)
    assert [some.names[int(place)] for some in splits.lost for place in some.marks.nonzero()] == ["train/archery/1.mp4"]


def test_broken_and_short_videos_are_left_out_counted_and_named(kinetics: Path) -> None:
    splits = load(kinetics)
    assert (len(splits.train), len(splits.test), splits.num_classes) == (8, 2, 2)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4
    lines = dict(line.split(": ", 1) for line in splits.skipped)
    assert set(lines) == {f"train/archery/{name}.mp4" for name in ("cut", "flash", "text")} | {
        "train/tap dancing/empty.mp4"
    }
    assert lines["train/archery/flash.mp4"] == "too short: 1 frame, a clip has 4"
    assert lines["train/archery/cut.mp4"].startswith("cut short: ")
    said = skipped_line(splits.skipped)
    assert said.startswith("4 left out, all named in provenance.json: train/archery/cut.mp4: cut short")
    assert "\n" not in said


def test_files_are_inspected_once(kinetics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(kinetics)
    asked: list[Path] = []
    monkeypatch.setattr(video_listing, "inspect", lambda path: (asked.append(path), inspect(path))[1])
    assert load(kinetics).skipped == first.skipped
    assert asked == []
    mended = write(kinetics / "train/archery/flash.mp4", count=9)
    os.utime(mended, ns=(1, 1))
    again = load(kinetics)
    assert asked == [mended]
    assert (len(again.train), len(again.skipped)) == (9, 3)
    assert again.fingerprint != first.fingerprint


@pytest.mark.parametrize(("separator", "listed"), [(" ", "val"), (",", "val"), (" ", "validate")])
def test_lists_of_paths_and_classes_are_read(
    kinetics: Path, separator: str, listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [("train/archery/2.mp4", "1"), ("train/tap dancing/3.mp4", "0"), ("gone.mp4", "0")]
    (kinetics / "train.csv").write_text("".join(f"{separator.join(line)}\n" for line in lines))
    (kinetics / f"{listed}.csv").write_text(f"val/archery/v.mp4{separator}0\n")
    if listed != "val":  # a folder of that name is looked for first
        (kinetics / "val").rename(kinetics / "valid")
        (kinetics / f"{listed}.csv").write_text(f"valid/archery/v.mp4{separator}0\n")
    splits = load(kinetics)
    assert splits.train.labels.tolist() == [1, 0]
    assert splits.skipped == (f"{kinetics.name}/gone.mp4: cannot be decoded (No such file or directory)",)
    monkeypatch.setattr(video_listing, "inspect", lambda path: pytest.fail(f"{path} was inspected twice"))
    assert load(kinetics).fingerprint == splits.fingerprint


@pytest.mark.parametrize("in_folders", [True, False])
def test_kinetics_own_annotations_are_read(tmp_path: Path, in_folders: bool) -> None:
    for split in ("train", "val"):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for label in ("archery", "tap dancing"):
            for video in ("-aB_", "xyz"):
                name = f"{label[0]}{video}_000007_000017.mp4"
                write(tmp_path / split / (label if in_folders else "") / name)
                lines.append(f'"{label}",{label[0]}{video},7,17,{split}')
        lines.append(f"archery,vanished,1,11,{split}")
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    splits = load(tmp_path)
    assert sorted(splits.train.labels.tolist()) == [0, 0, 1, 1]
    assert [line.partition(":")[0].rpartition("/")[2] for line in splits.skipped] == ["vanished_000001_000011.mp4"] * 2


def test_what_is_no_such_data_set_is_named(kinetics: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no val or validation or validate, folder or csv, in it"):
        load(tmp_path)
    (kinetics / "val.csv").write_text("val/archery/v.mp4 swimming\n")
    with pytest.raises(UserError, match="classes that no training video has: swimming"):
        load(kinetics)
    (kinetics / "val.csv").write_text("v.mp4\n")
    with pytest.raises(UserError, match=r"val.csv line 1: expected a path and a class, found 1 column$"):
        load(kinetics)
    (kinetics / "val.csv").write_text("one,two,three\n")
    with pytest.raises(UserError, match=r"val.csv line 1: expected a path and a class, found 3 columns"):
        load(kinetics)
    (kinetics / "val.csv").write_text("gone.mp4 archery\n")
    with pytest.raises(UserError, match=r"none of 1 videos can be used; .*gone\.mp4"):
        load(kinetics)


def test_models_of_clips_and_images_take_their_own(kinetics: Path) -> None:
    for overrides, words in (
        (("backbone=timesformer_base",), "data=digits: the model takes clips"),
        (("backbone=deit_small", "data=shapes_video"), "data=shapes_video: the model takes images"),
    ):
        config = compose(overrides)
        with pytest.raises(UserError, match=words):
            load_splits(config.data, config.recipe, config.model)


def test_clip_1_is_the_middle_and_video_1_is_left_centre_and_right(kinetics: Path) -> None:
    splits = load(kinetics)
    clip, _ = splits.test[0]
    views, _ = splits.views["video1"][0]
    # 12 frames, 4 of them 2 apart, the first after half of the 6 that are free; 24 of 32 columns.
    raw = torch.from_numpy(frames(12, seed=20)[[3, 5, 7, 9]]).permute(0, 3, 1, 2).float() / 255
    seen = (raw - 0.45) / 0.225
    torch.testing.assert_close(clip, seen[..., 4:28])
    torch.testing.assert_close(views, torch.stack([seen[..., :24], seen[..., 4:28], seen[..., 8:]]))


def test_training_clips_are_drawn_from_the_generator_alone(kinetics: Path) -> None:
    train = load(kinetics).train
    assert train.is_random

    def drawn(seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return train[0][0]

    assert drawn(0).equal(drawn(0))
    assert not drawn(0).equal(drawn(1))
    assert drawn(0).shape == (4, 3, 24, 24)


@given(st.integers(1, 400), st.integers(1, 16), st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_frames_of_a_clip_are_in_the_video_and_in_order(total: int, count: int, step: int, start: float) -> None:
    found = frames_of_clip(total, count, step, start)
    assert len(found) == count
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < total
    if (count - 1) * step < total:
        assert {later - earlier for earlier, later in itertools.pairwise(found)} <= {step}


def test_frames_of_a_clip_by_hand() -> None:
    assert frames_of_clip(300, 8, 32, 0.0) == list(range(0, 225, 32))
    assert frames_of_clip(300, 8, 32, 0.9999)[-1] == 299
    assert frames_of_clip(9, 3, 32, 0.7) == [0, 4, 8]


def test_an_upright_video_is_cropped_above_and_below() -> None:
    images = scaled(torch.from_numpy(frames(2, height=40, width=20)), 10)
    assert images.shape == (2, 3, 20, 10)
    above, centre, below = spatial_crops(images, 10)
    assert above.equal(images[:, :, :10])
    assert centre.equal(images[:, :, 5:15])
    assert below.equal(images[:, :, 10:])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_video, "TRAIN_VIDEOS", 32)
    monkeypatch.setattr(shapes_video, "TEST_VIDEOS", 16)


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
        path = splits.test.folder / os.fsdecode(splits.test.names[place])
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
    folder, digest = shapes_video.kept_videos(tmp_path)
    monkeypatch.setattr(shapes_video, "write_video", lambda *_: pytest.fail("written again"))
    assert shapes_video.kept_videos(tmp_path) == (folder, digest)
    assert [path.name for path in tmp_path.glob("[!.]*")] == [folder.name]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("how", ["zeroed", "gone", "exchanged"])
def test_moving_shapes_that_were_damaged_are_written_anew(tmp_path: Path, how: str) -> None:
    folder, digest = shapes_video.kept_videos(tmp_path)
    one, other = sorted(folder.glob("val/*/*.mp4"))[:2]
    before = one.read_bytes()
    if how == "gone":
        one.unlink()
    else:
        one.write_bytes(bytes(len(before)) if how == "zeroed" else other.read_bytes())
    assert shapes_video.kept_videos(tmp_path) == (folder, digest)
    assert np.array_equal(read_frames(one, range(8)), shapes_video.videos(1, range(16))[0][int(one.stem)])


@pytest.mark.usefixtures("few")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        UserError, match=r"file/sub: videos cannot be written there \(Not a directory\); set data\.root"
    ):
        shapes_video.kept_videos(tmp_path / "file/sub")


@pytest.mark.usefixtures("few")
def test_a_writing_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes_video, "write_video", stop)
    with pytest.raises(KeyboardInterrupt):
        shapes_video.kept_videos(tmp_path)
    assert list(tmp_path.glob("[!.]*")) + list(tmp_path.glob("*/")) == []


def test_a_run_says_what_it_left_out(kinetics: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from repro.cli import main

    words = ["train", "backbone=timesformer_base", "data=kinetics400", f"data.root='{kinetics}'", "scale=smoke"]
    words += ["data.limit_train=null", "data.limit_test=null", "data.workers=0", "data.clip.frame_step=2"]
    words += ["model.num_classes=2", "model.depth=1", "recipe.global_batch=4", "recipe.micro_batch=4"]
    words += ["recipe.epochs=1", "recipe.warmup_epochs=0", f"run.root={tmp_path / 'runs'}", "tracker=none"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    (record,) = (tmp_path / "runs").glob("by_hand/timesformer_base/dense/smoke/seed0-*")
    result = json.loads((record / "result.json").read_text())
    assert result["data_skipped"] == 4
    assert 0 <= result["top1_video1_pct"] <= 100
    named = json.loads((record / "provenance.json").read_text())["data_skipped"]
    assert len(named) == 4
    logs = "".join(path.read_text() for path in record.glob("attempts/1/*")) + capfd.readouterr().out
    assert "4 left out, all named in provenance.json" in logs

"""Kinetics in class folders and csv files, with whole and broken mp4 files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from video_files import kinetics_config, load, write

from repro.config.compose import compose
from repro.data import video_inspection
from repro.data.preflight import check_fits
from repro.data.splits import load_splits, skipped_line
from repro.data.video_decoding import Inspection, inspect
from repro.errors import UserError
from repro.interruption import Interrupted

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_broken_and_short_videos_are_left_out_and_named(kinetics: Path) -> None:
    splits = load(kinetics)
    assert (len(splits.train), len(splits.test), splits.num_classes) == (8, 2, 2)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4
    lines = dict(line.split(": ", 1) for line in splits.skipped)
    assert set(lines) == {f"train/archery/{name}.mp4" for name in ("cut", "flash", "text")} | {
        "train/tap dancing/empty.mp4"
    }
    assert lines["train/archery/flash.mp4"] == "too short: 1 frame, a clip has 4"
    assert lines["train/archery/cut.mp4"].startswith("cut short: ")
    line = skipped_line(splits.skipped)
    assert line.startswith("4 left out, all named in provenance.json: train/archery/cut.mp4: cut short")
    assert "\n" not in line


def test_files_are_inspected_once(kinetics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(kinetics)
    inspected: list[Path] = []
    monkeypatch.setattr(video_inspection, "inspect", lambda path: (inspected.append(path), inspect(path))[1])
    assert load(kinetics).skipped == first.skipped
    assert inspected == []
    mended = write(kinetics / "train/archery/flash.mp4", count=9)
    os.utime(mended, ns=(1, 1))
    again = load(kinetics)
    assert inspected == [mended]
    assert (len(again.train), len(again.skipped)) == (9, 3)
    assert again.fingerprint != first.fingerprint


def test_a_name_that_is_not_utf8_is_inspected_once_and_may_be_lost(
    kinetics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsencode(kinetics / "train/archery") + b"/\xff.mp4"
    try:
        os.rename(os.fsencode(kinetics / "train/archery/3.mp4"), odd)
    except OSError:
        pytest.skip("this file system takes no names that are not UTF-8")
    first = load(kinetics)
    inspected: list[Path] = []
    monkeypatch.setattr(video_inspection, "inspect", lambda path: (inspected.append(path), inspect(path))[1])
    assert load(kinetics).fingerprint == first.fingerprint
    assert inspected == []
    os.unlink(odd)
    resumed = load(kinetics, resume_fingerprint=first.fingerprint)
    assert (resumed.fingerprint, len(resumed.train)) == (first.fingerprint, 8)


@pytest.mark.parametrize("how", [Interrupted("SIGTERM"), KeyboardInterrupt()])
def test_an_interrupted_inspection_resumes_where_it_left_off(
    kinetics: Path, how: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected: list[str] = []

    def stopped(path: Path) -> Inspection:
        inspected.append(path.name)
        if path.name == "text.mp4":
            raise how
        return inspect(path)

    monkeypatch.setattr(video_inspection, "STAT_THREADS", 1)  # in the order of the names: archery first
    monkeypatch.setattr(video_inspection, "inspect", stopped)
    with pytest.raises(type(how)):
        load(kinetics)
    assert inspected[:7] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "cut.mp4", "flash.mp4", "text.mp4"]
    assert len(inspected) < 12, "pending files are not started"
    inspected.clear()
    monkeypatch.setattr(video_inspection, "inspect", lambda path: (inspected.append(path.name), inspect(path))[1])
    load(kinetics)
    assert inspected == ["text.mp4", "0.mp4", "1.mp4", "2.mp4", "3.mp4", "empty.mp4", "v.mp4", "v.mp4"]


def test_a_long_inspection_reports_its_progress(
    kinetics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(kinetics)
    assert capsys.readouterr().out == "", "a short inspection prints nothing"
    os.utime(kinetics / "train/archery/0.mp4", ns=(1, 1))
    monkeypatch.setattr(video_inspection, "REPORT_EVERY_S", 0.0)
    load(kinetics)
    progress = "1 of 1 video inspected, about 0 minutes left; results so far are kept if this is interrupted"
    assert capsys.readouterr().out == f"{kinetics / 'train'}: {progress}\n"


@pytest.mark.parametrize(("separator", "listed"), [(" ", "val"), (",", "val"), (" ", "validate")])
def test_lists_of_paths_and_classes_are_read(
    kinetics: Path, separator: str, listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [("train/archery/2.mp4", "1"), ("train/tap dancing/3.mp4", "0"), ("gone.mp4", "0")]
    (kinetics / "train.csv").write_text("".join(f"{separator.join(line)}\n" for line in lines))
    (kinetics / f"{listed}.csv").write_text(f"val/archery/v.mp4{separator}0\n")
    if listed != "val":  # which has priority
        (kinetics / "val").rename(kinetics / "valid")
        (kinetics / f"{listed}.csv").write_text(f"valid/archery/v.mp4{separator}0\n")
    splits = load(kinetics)
    assert splits.train.labels.tolist() == [1, 0]
    assert splits.skipped == (f"{kinetics.name}/gone.mp4: cannot be decoded (No such file or directory)",)
    monkeypatch.setattr(video_inspection, "inspect", lambda path: pytest.fail(f"{path} was inspected twice"))
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


def test_other_layouts_are_refused(kinetics: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither train\.csv nor class folders in train/; expected train/<class>"):
        load(tmp_path)
    (kinetics / "val.csv").write_text("val/archery/v.mp4 swimming\n")
    with pytest.raises(UserError, match="classes without a training video: swimming"):
        load(kinetics)
    (kinetics / "val.csv").write_text("v.mp4\n")
    with pytest.raises(UserError, match=r"val.csv line 1: expected a path and a class, found 1 column$"):
        load(kinetics)
    (kinetics / "val.csv").write_text("one,two,three\n")
    with pytest.raises(UserError, match=r"val.csv line 1: expected a path and a class, found 3 columns"):
        load(kinetics)
    (kinetics / "val.csv").write_text("gone.mp4 archery\n")
    with pytest.raises(
        UserError, match=r"none of 1 video can be used; .*gone\.mp4.*; paths in val\.csv are absolute, or"
    ):
        load(kinetics)


def test_models_of_images_take_no_clips_and_the_reverse(kinetics: Path) -> None:
    for overrides, words in (
        (("backbone=timesformer_base",), "data=digits: the model takes clips"),
        (("backbone=deit_small", "data=shapes_video"), "data=shapes_video: the model takes images"),
    ):
        config = compose(overrides)
        with pytest.raises(UserError, match=words):
            load_splits(config.data, config.recipe, config.model)


def test_a_run_records_what_it_left_out(kinetics: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from repro.cli.main import main

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


ANNOTATIONS = "label,youtube_id,time_start,time_end,split\n" + "".join(
    f"{label},-{number}abc,0,10,train\n" for label in ("air drumming", "abseiling") for number in range(2)
)
LIST = "".join(
    f"{{split}}/{label}/-{number}abc_000000_000010.mp4\t{index}\n"
    for index, label in enumerate(("abseiling", "air drumming"))
    for number in range(2)
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("text", "folder"),
    [
        (ANNOTATIONS, "air drumming"),
        (ANNOTATIONS, "air_drumming"),
        (ANNOTATIONS, "Air_Drumming"),
        (ANNOTATIONS.replace(",", ";"), "air drumming"),
        ("\n".join(f'"{line}"'.replace(",", '","') for line in ANNOTATIONS.splitlines()), "air drumming"),
        (LIST, "air drumming"),
        (LIST.replace("\t", " "), "air drumming"),
        (LIST.replace("\t", ","), "air drumming"),
        (LIST.replace("\t", " ").replace("\n", " \r\n"), "air drumming"),
    ],
)
def test_lists_of_videos_as_they_are_published_and_saved(tmp_path: Path, text: str, folder: str, encoding: str) -> None:
    for split in ("train", "val"):
        for label in ("abseiling", folder):
            for number in range(2):
                write(tmp_path / split / label / f"-{number}abc_000000_000010.mp4", seed=number)
        (tmp_path / f"{split}.csv").write_bytes(text.replace("{split}", split).encode(encoding))
    splits = load(tmp_path)
    assert (splits.train.labels.tolist(), splits.skipped) == (
        [1, 1, 0, 0] if text.startswith(("label", '"label')) else [0, 0, 1, 1],
        (),
    )


def test_a_class_without_a_usable_video_is_named(kinetics: Path) -> None:
    for path in (kinetics / "train/archery").glob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"train: no usable video of class archery; the first: train/archery/0\.mp4: "):
        load(kinetics)


@pytest.mark.parametrize("text", ["label,youtube_id,time_start,time_end\na,b,soon,10\n", "a\n", "x,y,z\n", "\0", "é"])
def test_other_csv_files_are_one_line(kinetics: Path, text: str) -> None:
    (kinetics / "train.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        load(kinetics)
    assert str(caught.value).startswith(f"{kinetics / 'train.csv'}")
    assert "\n" not in str(caught.value)


def test_the_classes_in_a_csv_file_are_counted_before_a_run(kinetics: Path) -> None:
    for split in ("train", "val"):
        (kinetics / f"{split}.csv").write_text(f"{split}/archery/0.mp4 archery\n{split}/a b/1.mp4 tap dancing\n")
    check_fits(kinetics_config(kinetics))
    with pytest.raises(UserError, match=r"do not fit the config; set model\.num_classes=2$"):
        check_fits(kinetics_config(kinetics, "model.num_classes=3"))

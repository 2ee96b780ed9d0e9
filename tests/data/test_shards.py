"""Shards: exactly the data of the folder or the tar files that were packed."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from image_folders import MakeImages, folder_config
from timm.data import ImageNetInfo
from torch import Tensor

from repro.cli.main import main
from repro.data.loader import TrainLoader
from repro.data.shards import open_shards
from repro.data.splits import Splits, load_splits
from repro.errors import UserError

WNIDS = ImageNetInfo().label_names()


def load(root: Path, data: str = "imagefolder", decoder: str = "fast") -> Splits:
    config = folder_config(root, data=data, **{"data.decoder": decoder})
    return load_splits(config.data, config.recipe, config.model)


def repro(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def packed(flowers: Path, tmp_path: Path) -> Path:
    """The flowers in shards of four."""
    out = tmp_path / "packed"
    assert repro("shards", flowers, out, "--images", 4) == 0
    return out


def batches(splits: Splits, workers: int, first: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = TrainLoader(splits.train, global_batch=4, micro_batch=2, seed=0, repeats=3, workers=workers)
    return list(loader.batches(2, first))


def load_error(root: Path, data: str = "imagefolder") -> str:
    with pytest.raises(UserError) as caught:
        load(root, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(("workers", "decoder"), [(0, "fast"), (2, "fast"), (0, "pil")])
def test_shards_equal_the_folder(flowers: Path, packed: Path, workers: int, decoder: str) -> None:
    assert sorted(path.name for path in (packed / "train").iterdir()) == [
        f"train-0000{number}-of-00003.zip" for number in range(3)
    ]
    folder, shards = (load(root, decoder=decoder) for root in (flowers, packed))
    assert (folder.in_shards, shards.in_shards) == (False, True)
    assert (folder.decoder, shards.decoder) == (decoder, decoder)
    # The same fingerprint: a run that began with one resumes with the other.
    assert shards.fingerprint == folder.fingerprint
    assert shards.train.labels.equal(folder.train.labels)
    for one, other in zip(batches(folder, 0, first=1), batches(shards, workers, first=1), strict=True):
        assert one[0].equal(other[0])
        assert one[1].equal(other[1])
    for index in range(3):
        assert folder.test[index][0].equal(shards.test[index][0])
    assert shards.test.take(torch.tensor([2]))[0][0].equal(folder.test[2][0])
    assert shards.train.take(torch.tensor([9, 0, 5])).labels.tolist() == [1, 0, 0]


def test_the_same_images_make_the_same_shards(flowers: Path, packed: Path, tmp_path: Path) -> None:
    assert repro("shards", flowers, tmp_path / "again", "--images", 4) == 0
    paths = sorted(packed.rglob("*.zip"))
    assert len(paths) == 4
    for path in paths:
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(packed)).read_bytes()


def test_zipfile_reads_shards(flowers: Path, packed: Path) -> None:
    with zipfile.ZipFile(packed / "val/val-00000-of-00001.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["aster/a.jpg", "aster/b.jpg", "rose/a.jpg"]
        assert archive.read("rose/a.jpg") == (flowers / "val/rose/a.jpg").read_bytes()


def test_zip_files_of_other_programs_are_read(flowers: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "zips" / split).mkdir(parents=True)
        archive = tmp_path / "zips" / split / "any.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
            out.write(flowers / split, "folder/")
            for path in sorted((flowers / split).rglob("*.*"), reverse=True):
                out.write(path, path.relative_to(flowers / split))
    assert load(tmp_path / "zips").fingerprint == load(flowers).fingerprint
    assert load(tmp_path / "zips").train.labels.tolist() == [0] * 6 + [1] * 4


def test_shards_of_shards_have_other_sizes_and_the_same_images(flowers: Path, packed: Path, tmp_path: Path) -> None:
    assert repro("shards", packed, tmp_path / "large") == 0
    assert load(tmp_path / "large").fingerprint == load(flowers).fingerprint


def test_kaggles_validation_folder_is_packed_with_its_labels(tmp_path: Path, make_images: MakeImages) -> None:
    root = tmp_path / "kaggle"
    inner = root / "ILSVRC/Data/CLS-LOC"
    make_images(inner / "train", [f"{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS[5:7] for i in range(2)])
    make_images(inner / "val", [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2)])
    lines = [f"ILSVRC2012_val_0000000{number},{wnid} 1 2 3 4\n" for number, wnid in ((1, WNIDS[6]), (2, WNIDS[5]))]
    (root / "LOC_val_solution.csv").write_text("".join(["ImageId,PredictionString\n", *lines]))
    assert repro("shards", root, tmp_path / "out") == 0
    folder, shards = load(root, "imagenet"), load(tmp_path / "out", "imagenet")
    assert shards.test.labels.tolist() == [1, 0]
    assert shards.fingerprint == folder.fingerprint


# Damage ---------------------------------------------------------------------------------------------------------------


def test_damaged_shards_are_refused(packed: Path) -> None:
    shard = packed / "train/train-00001-of-00003.zip"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-30])
    assert load_error(packed) == (
        f"{shard}: cannot be read as a zip file (File is not a zip file); copy the shard again, or make it anew "
        "(repro shards)"
    )
    shard.unlink()
    assert load_error(packed) == f"{shard.parent}: no {shard.name}; copy the shards again"


def test_a_damaged_image_in_a_shard_is_replaced(packed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shard = packed / "train/train-00000-of-00003.zip"
    whole = shard.read_bytes()
    train = load(packed).train
    with zipfile.ZipFile(shard) as archive:
        offset = archive.getinfo("aster/1.jpg").header_offset
    shard.write_bytes(whole[: offset + 200] + b"\0" * 8 + whole[offset + 208 :])
    assert train[1][1] == 0
    assert capfd.readouterr().err == (
        f"{shard}: aster/1.jpg: its bytes do not have the checksum that the shard gives; the next file of its class "
        "replaces it\n"
    )
    with shard.open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(UserError, match="2 files have become unreadable"):
        train[0]


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, None])
def test_compressed_and_streamed_zip_files_are_refused(flowers: Path, packed: Path, compression: int | None) -> None:
    shard = packed / "val/val-00000-of-00001.zip"
    shard.unlink()
    if compression is None:  # with a data descriptor behind the file
        command = ["python", "-c", "import sys, zipfile; zipfile.ZipFile(sys.stdout.buffer, 'w').write(sys.argv[1])"]
        shard.write_bytes(subprocess.run([*command, "val/rose/a.jpg"], cwd=flowers, stdout=subprocess.PIPE).stdout)
    else:
        with zipfile.ZipFile(shard, "w", compression) as archive:
            archive.write(flowers / "val/rose/a.jpg", "val/rose/a.jpg")
    message = f"{shard}: val/rose/a.jpg is not stored uncompressed; unzip it, and pack the folder (repro shards)"
    assert load_error(packed) == message


def test_one_image_in_two_shards_is_refused(packed: Path) -> None:
    shutil.copy(packed / "train/train-00000-of-00003.zip", packed / "train/old.zip")
    message = f"{packed}/train/train-00000-of-00003.zip: aster/0.jpg is in old.zip too; rename or remove one of them"
    assert load_error(packed) == message


# Tar files ------------------------------------------------------------------------------------------------------------


def test_tar_files_of_the_first_shards_are_converted(flowers: Path, tmp_path: Path) -> None:
    """`repro shards` used to write WebDataset's tar files with an index."""
    for split in ("train", "val"):
        folder = tmp_path / "tars" / split
        members: dict[str, bytes] = {}
        for path in sorted((flowers / split).rglob("*.*")):
            name = path.relative_to(flowers / split)
            members[str(name)] = path.read_bytes()
            members[f"{name.with_suffix('')}.cls"] = b"0" if name.parts[0] == "aster" else b"1"
        write_tar(folder / f"{split}-000000.tar", members)
        (folder / "classes.txt").write_text("aster\nrose\n")
        (folder / "index.npz").write_bytes(b"")
    tars = tmp_path / "tars"
    assert load_error(tars) == (f"{tars}/train: tar files are not read directly; repro shards {tars} OUT converts them")
    assert repro("shards", tars, tmp_path / "out") == 0
    assert load(tmp_path / "out").fingerprint == load(flowers).fingerprint


def test_webdatasets_tar_files_are_converted(flowers: Path, tmp_path: Path) -> None:
    pictures = [(flowers / f"train/{name}").read_bytes() for name in ("rose/1.JPEG", "aster/3.jpg")]
    # Members in any order, of other kinds, and a name that tar keeps in a header of its own.
    long = "a/" + "b" * 150
    for split in ("train", "val"):
        folder = tmp_path / "tars" / split
        write_tar(folder / "x.tar", {"0007.cls": b"1\n", "0007.json": b"{}", "0007.jpg": pictures[0]})
        write_tar(folder / "y.tar.gz", {f"{long}.jpeg": pictures[1], f"{long}.cls": b"0"}, "w:gz")
        (folder / "classes.txt").write_text("aster\nrose\n")
    assert repro("shards", tmp_path / "tars", tmp_path / "out") == 0
    splits = load(tmp_path / "out")
    assert splits.train.labels.tolist() == [0, 1]
    assert splits.train.files.name(0).endswith(f"out/train/train-00000-of-00001.zip: aster/{long}.jpeg")  # type: ignore[attr-defined]
    assert [splits.train.files.read(row) for row in (0, 1)] == pictures[::-1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar", "w:gz"), ("tar.gz", "w:gz"), ("txz", "w:xz")])
def test_imagenets_class_tars_are_converted(tmp_path: Path, make_images: MakeImages, ending: str, mode: str) -> None:
    for split in ("train", "val"):
        make_images(tmp_path / "folder" / split, [f"{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS[5:7] for i in range(2)])
        for wnid in WNIDS[5:7]:
            images = {path.name: path.read_bytes() for path in (tmp_path / "folder" / split / wnid).iterdir()}
            write_tar(tmp_path / "tars" / split / f"{wnid}.{ending}", images, mode)
    assert repro("shards", tmp_path / "tars", tmp_path / "out") == 0
    assert load(tmp_path / "out", "imagenet").fingerprint == load(tmp_path / "folder", "imagenet").fingerprint


def test_tar_files_that_cannot_be_packed_are_refused(
    flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, out = tmp_path / "tars/train", tmp_path / "out"
    write_tar(train / "aster.tar", {"a.jpg": b"1"})
    (tmp_path / "tars/val").symlink_to(flowers / "val")

    def error() -> str:
        assert repro("shards", tmp_path / "tars", out) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert not out.exists()
        return message.strip()

    tar = train / "rose.tar"
    tar.write_bytes((train / "aster.tar").read_bytes()[:700] + b"\1" * 700)
    assert error().startswith(f"repro: {tar}: damaged tar file (")
    tar.write_bytes(b"no tar file" * 100)
    assert error().startswith(f"repro: {tar}: damaged tar file (")
    write_tar(tar, {"n1.tar": b"", "n2.tar": b""})
    assert error() == f"repro: {tar}: tar files in it; unpack and remove it: tar -xf {tar} -C {train} && rm {tar}"
    write_tar(tar, {"rose/a.txt": b"1"})
    assert error() == f"repro: {tar}: no images in it"
    write_tar(tar, {"rose/a.jpg": b"1", "./rose/a.jpg": b"2"})
    assert error() == f"repro: {tar}: rose/a.jpg is in it twice; unpack it, and pack the folder"
    write_tar(tar, {"rose/\udcff.jpg": b"1"})
    assert error().startswith(r"repro: 'rose/\udcff.jpg': a name in a zip file is UTF-8")
    write_tar(tar, {"aster/a.jpg": b"1"})
    assert error() == f"repro: {tar}: aster/a.jpg is in aster.tar too; rename or remove one of them"
    write_tar(tar, {"a.jpg": b"1", "a.cls": b"rose"})
    assert error().startswith(f"repro: {train}: no classes.txt in it; write one")
    (train / "classes.txt").write_text("aster\nrose\n")
    assert error() == f"repro: {tar}: a.cls: class 'rose', classes.txt names 2; correct either"
    write_tar(tar, {"a.jpg": b"1", "a.cls": b"2"})
    assert error() == f"repro: {tar}: a.cls: class '2', classes.txt names 2; correct either"
    write_tar(tar, {"a.jpg": b"1", "b.jpg": b"2", "b.cls": b"0"})
    assert error() == f"repro: {tar}: a.jpg: no a.cls; add its class to the tar file"
    write_tar(tar, {"a.b.jpg": b"1", "a.c.jpg": b"1", "a.cls": b"0"})
    assert error() == f"repro: {tar}: a.b.jpg and a.c.jpg have the same key, a; rename one of them"


def test_shards_replace_nothing(flowers: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        ((flowers, packed), f"{packed}: exists already; remove it, or give another folder"),
        ((flowers, packed / "new", "--images", 0), "argument --images: 0: must be an integer, at least 1"),
        ((flowers, packed / "train/train-00000-of-00003.zip/new"), "cannot be written (Not a directory)"),
    ):
        assert repro("shards", *arguments) == 2
        assert expected in capsys.readouterr().err


def test_an_interrupted_packing_leaves_no_shards(flowers: Path, tmp_path: Path) -> None:
    (flowers / "val/rose/a.jpg").unlink()
    (flowers / "val/rose/a.jpg").symlink_to("missing.jpg")
    assert repro("shards", flowers, tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
    (flowers / "val/rose/a.jpg").unlink()
    (flowers / "val/rose/a.jpg").write_bytes(b"1")
    assert repro("shards", flowers, tmp_path / "out") == 0


def test_a_full_disk_leaves_no_shards_and_says_what_to_do(
    flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile.writestr", full)
    assert repro("shards", flowers, tmp_path / "out" / "sh") == 2
    advice = "free some space and run the same command again"
    assert capsys.readouterr().err == f"repro: {tmp_path}/out/sh: No space left on device; {advice}\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_not_there_is_not_that_of_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repro("shards", tmp_path / "nowhere", tmp_path / "out") == 2
    train = tmp_path / "nowhere" / "train"
    assert capsys.readouterr().err == f"repro: {train}: no such folder; expected {train}/<class>/*.jpg\n"


def test_threads_that_open_a_shard_together_leave_one_descriptor(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, shards = open_shards(packed / "train")
    opened, closed, together = list[int](), list[int](), threading.Barrier(4, timeout=60)
    real_open, real_close = os.open, os.close

    def slow_open(path: Path, flags: int) -> int:
        together.wait()
        opened.append(real_open(path, flags))
        return opened[-1]

    def counted_close(descriptor: int) -> None:
        closed.append(descriptor)
        real_close(descriptor)

    monkeypatch.setattr(os, "open", slow_open)
    monkeypatch.setattr(os, "close", counted_close)
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(shards.read, [0] * 4))
    assert len(set(contents)) == 1
    assert len(opened) - len(closed) == 1


def test_an_empty_folder_can_be_named_by_a_dot(flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert repro("shards", flowers, ".") == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"train", "val"}

"""Whatever bytes a data file holds, its reader returns an answer or one line, never a traceback."""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cifar_files import write_cifar
from hypothesis import given
from hypothesis import strategies as st
from random_input import answer, damaged, edited, random_input
from torchvision.datasets import CIFAR10
from video_files import write

from repro.config.compose import compose
from repro.data.cifar import read_archive
from repro.data.layouts import Split
from repro.data.listing import Listing, list_images, list_videos, read_kaggle_labels
from repro.data.pack import list_tars
from repro.data.saved_listing import changed_files, save_listing
from repro.data.shards import open_shards
from repro.data.video_decoding import inspect, read_frames
from repro.data.video_inspection import inspect_videos

IMAGES = {"aster/a.jpg": b"1" * 40, "rose/b.jpg": b"2" * 40}


@functools.cache
def shard() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in IMAGES.items():
            archive.writestr(name, content)
    return stream.getvalue()


@functools.cache
def tar(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in (*IMAGES.items(), ("aster/a.cls", b"0"), ("rose/b.cls", b"1")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@given(st.data())
@random_input
def test_shards(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "0.zip").write_bytes(data.draw(damaged(shard())))

    def read() -> list[bytes]:
        names, shards = open_shards(tmp_path)
        return [shards.read(row) for row in range(len(names))]

    answer(read)
    answer(lambda: list_images(Split(tmp_path, is_packed=True)))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_files(tmp_path: Path, mode: str) -> None:
    @given(st.data())
    @random_input
    def check(data: st.DataObject) -> None:
        (tmp_path / "0.tar").write_bytes(data.draw(damaged(tar(mode))))
        (tmp_path / "classes.txt").write_bytes(data.draw(st.one_of(st.just(b"aster\nrose\n"), st.binary(max_size=20))))
        answer(lambda: list_tars(tmp_path))

    check()


@pytest.mark.parametrize(
    "header",
    [b"", b"\xff\xfe", b"ImageId,PredictionString\n", b"label,youtube_id,time_start,time_end\n", b"a/b.mp4 1\n"],
)
def test_lists(tmp_path: Path, header: bytes) -> None:
    table = tmp_path / "train.csv"
    text = st.text(alphabet='a1,;\t "\n\r\x00é/.-', max_size=60).map(str.encode)

    @given(st.one_of(st.binary(max_size=100), text))
    @random_input
    def check(lines: bytes) -> None:
        table.write_bytes(header + lines)
        answer(lambda: read_kaggle_labels(table))
        answer(lambda: list_videos(Split(tmp_path, table)))

    check()


@pytest.mark.parametrize("is_packed", [True, False])
def test_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_packed: bool) -> None:
    """What is not the published archive is not unpickled."""
    write_cifar(tmp_path, "cifar10", monkeypatch, train=10, test=2, pack=is_packed)
    path = tmp_path / CIFAR10.filename if is_packed else tmp_path / CIFAR10.base_folder / "test_batch"
    data = compose(["scale=mini", f"data.root='{tmp_path}'"]).data

    @given(damaged(path.read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        path.write_bytes(content)
        answer(lambda: read_archive(data, is_training=False))

    check()


def test_saved_listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = Listing(tmp_path, ["aster/a.jpg", "rose/b.jpg"], ["aster", "rose"], recorded_lengths=[3, 4])
    save_listing("0123-45", files)
    (path,) = tmp_path.rglob("files-of-0123.json.gz")
    columns = b'[[["aster/a.jpg", "rose/b.jpg"], ["aster", "rose"], [3, 4]]]'
    assert gzip.decompress(path.read_bytes()) == columns

    @given(st.one_of(damaged(path.read_bytes()), edited(columns).map(gzip.compress)))
    @random_input
    def check(content: bytes) -> None:
        path.write_bytes(content)
        assert "\n" not in changed_files("0123-45", files)

    check()


def test_cached_inspections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "train/a").mkdir(parents=True)
    write(tmp_path / "train/a/0.mp4")
    listing = list_videos(Split(tmp_path / "train"))
    usable = inspect_videos(listing, 1)
    (path,) = (tmp_path / "cache").rglob("videos-*.json")

    @given(edited(path.read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        path.write_bytes(content)
        assert inspect_videos(listing, 1)[0][0][0] == usable[0][0][0]

    check()


def test_videos(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.mp4")
    whole = path.read_bytes()
    frames = read_frames(path, [0, 1])

    @given(damaged(whole))
    @random_input
    def check(content: bytes) -> None:
        path.write_bytes(content)
        fault = inspect(path).fault
        assert "\n" not in fault
        read = answer(lambda: read_frames(path, [0, 1]))
        assert isinstance(read, str) or read.shape[0] == 2  # type: ignore[attr-defined]

    check()
    assert frames.dtype == np.uint8

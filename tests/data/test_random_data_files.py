"""Whatever bytes a data file holds, its reader returns an answer or one line, never a traceback."""

from __future__ import annotations

import functools
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_input import answer, damaged, random_input
from video_files import write

from repro.data.layouts import Split
from repro.data.listing import list_images, list_videos, read_kaggle_labels
from repro.data.pack import list_tars
from repro.data.shards import open_shards
from repro.data.video_decoding import inspect, read_frames

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

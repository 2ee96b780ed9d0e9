"""A video file: its pixels, how many frames it has, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from video_files import cut, frames, write, zeroed

from repro.data.layouts import Split
from repro.data.listing import list_videos
from repro.data.video_decoding import Inspection, inspect, read_frames
from repro.errors import UnreadableError

av = pytest.importorskip("av")
pytestmark = pytest.mark.usefixtures("empty_cache")


def test_written_pixels_are_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a b.mp4", count=11)
    assert inspect(path) == Inspection(11)
    assert np.array_equal(read_frames(path, range(11)), frames(11))
    assert np.array_equal(read_frames(path, [2, 2, 9]), frames(11)[[2, 2, 9]])


def test_faults_of_files(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    assert inspect(tmp_path / "text.mp4").fault.startswith("cannot be decoded (Invalid data")
    assert inspect(tmp_path / "none.mp4").fault == "cannot be decoded (No such file or directory)"
    found = inspect(cut(write(tmp_path / "cut.mp4", count=9)))
    assert found.fault == f"cut short: {found.frames} of 9 frames"
    assert 0 < found.frames < 9


@pytest.mark.parametrize(
    ("file", "codec", "pixels"),
    [
        *(("a.mp4", "libx264", name) for name in ("yuv420p", "yuv444p", "yuv420p10le")),
        *(("a.mkv", "ffv1", "gray"), ("a.webm", "libvpx-vp9", "yuv420p")),
        *(("a.avi", "mjpeg", "yuvj420p"), ("a.avi", "mpeg4", "yuv420p"), ("UPPER.MP4", "libx264", "yuv420p")),
    ],
)
def test_videos_of_other_formats_are_read(tmp_path: Path, file: str, codec: str, pixels: str) -> None:
    path = tmp_path / "a" / file
    path.parent.mkdir()
    with av.open(path, "w") as out:
        if path.suffix == ".mp4":
            out.add_stream("aac", rate=16000)  # before the video
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, pixels
        for frame in frames(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    for name in ("._0.mp4", "b.mp4.part", "picture.jpg"):  # left by a Mac, by a download, and no video
        (path.parent / name).write_bytes(b"x")
    assert list_videos(Split(tmp_path)).names == [f"a/{file}"]
    assert inspect(path) == Inspection(6)
    assert read_frames(path, [0, 5]).shape == (2, 24, 32, 3)


def test_a_file_with_sound_alone_has_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as out:
        stream = out.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        out.mux([*stream.encode(sound), *stream.encode()])
    assert inspect(path).fault == "no video in it"
    with pytest.raises(UnreadableError, match=r"sound\.mp4: cannot be decoded \(no video in it\)"):
        read_frames(path, [0])


def test_a_file_damaged_in_its_middle_is_unusable(tmp_path: Path) -> None:
    found = inspect(zeroed(write(tmp_path / "z.mp4", count=30)))
    assert 0 < found.frames < 30
    assert found.fault.startswith(f"cannot be decoded after {found.frames} frames (Invalid data")


@pytest.mark.parametrize("key_frames", ["every", "first"])
def test_a_video_cut_without_reencoding_has_the_frames_that_are_shown(tmp_path: Path, key_frames: str) -> None:
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
    assert inspect(whole) == Inspection(30)
    assert inspect(piece) == Inspection(23)
    assert np.array_equal(read_frames(piece, [0, 22]), read_frames(whole, [7, 29]))


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
    assert inspect(path) == Inspection(4)
    assert np.array_equal(read_frames(path, range(4)), frames(4))


def test_a_file_that_changes_later_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = cut(write(tmp_path / "cut.mp4", count=9))
    with pytest.raises(UnreadableError, match=r"cut\.mp4: (has no frame 8|cannot be decoded)"):
        read_frames(path, [8])

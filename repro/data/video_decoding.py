"""Inspects, reads and writes video files with PyAV (FFmpeg)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro.errors import UnreadableError, UserError, count_of

try:
    import av
except ImportError:
    raise UserError("videos are decoded with PyAV; pip install 'repro-sparse-vit[video]'") from None


@dataclass(frozen=True)
class Inspection:
    """The number of frames of a file, and why it cannot be used (empty if it can)."""

    frames: int
    fault: str = ""


def inspect(path: Path) -> Inspection:
    """Decode a whole file to count its frames and find out whether it can be used.

    Decoded frames are counted, not packets, because a file that was cut without re-encoding has packets of frames
    before its start, which are not shown. A file is truncated if it has fewer packets, including those, than its header
    says.
    """
    frames = packets = promised = 0
    error = ""
    try:
        with _opened(path) as container:
            if not container.streams.video:
                return Inspection(0, "no video in it")
            stream = container.streams.video[0]
            stream.thread_count = 1  # several files are inspected in parallel
            promised = stream.frames
            for packet in container.demux(stream):
                packets += packet.size > 0
                if not error:
                    try:
                        frames += len(packet.decode())
                    except av.error.FFmpegError as failure:
                        error = failure.strerror
    except av.error.FFmpegError as failure:
        error = error or failure.strerror
    if packets < promised and _packets(path) < promised:
        return Inspection(frames, f"cut short: {frames} of {count_of(promised, 'frame')}")
    if error:
        after = f" after {count_of(frames, 'frame')}"
        return Inspection(frames, f"cannot be decoded{after * (frames > 0)} ({error})")
    return Inspection(frames, "" if frames else "no frame in it")


def _packets(path: Path) -> int:
    """Count all packets of a video, including those that the edit list of the file hides."""
    count = 0
    with contextlib.suppress(av.error.FFmpegError), _opened(path, {"ignore_editlist": "1"}) as container:
        for packet in container.demux(container.streams.video[0]):
            count += packet.size > 0
    return count


def read_frames(path: Path, numbers: Sequence[int]) -> NDArray[np.uint8]:
    """Read the frames with these ascending numbers, uint8 (frames, height, width, 3).

    Raises `UnreadableError` if one of them cannot be decoded.
    """
    frames: dict[int, Any] = {}
    try:
        with _opened(path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # several loader processes decode in parallel
            for number, frame in enumerate(container.decode(stream)):
                if number in numbers:
                    frames[number] = frame.to_ndarray(format="rgb24")
                if number >= numbers[-1]:
                    break
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: the file has no video stream
        raise UnreadableError(f"{path}: cannot be decoded ({getattr(error, 'strerror', 'no video in it')})") from None
    missing = [number for number in numbers if number not in frames]
    if missing:
        raise UnreadableError(f"{path}: has no frame {missing[0]} any more")
    return np.stack([frames[number] for number in numbers])


def _opened(path: Path, options: dict[str, str] | None = None) -> Any:
    # Metadata such as titles may have any encoding, and are not used.
    return av.open(path, options=options, metadata_errors="ignore")


def write_video(path: Path, frames: NDArray[np.uint8], rate: int) -> None:
    """Write frames, uint8 (frames, height, width, 3), as a lossless MP4 file; `rate` is in frames per second."""
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_count = "rgb24", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())

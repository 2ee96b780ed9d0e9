"""Video files: what is in them, and frames of them, by PyAV (FFmpeg)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import UserError

try:
    import av
except ImportError:
    raise UserError("videos are decoded by PyAV; pip install 'repro-sparse-vit[video]'") from None


@dataclass(frozen=True)
class Inspected:
    """How many frames a file has, and what is wrong with it; empty where nothing is."""

    frames: int
    fault: str = ""


def inspect(path: Path) -> Inspected:
    """Decode a file once from its beginning to its end. What cannot be used has a fault, in a few words.

    A frame counts that a decoder gives out: a file that was cut without encoding it again has packets of frames before
    its beginning, which nobody is to see. A file that was cut short has fewer packets than its header promises, those
    among them.
    """
    frames = packets = promised = 0
    error = ""
    try:
        with _opened(path) as container:
            if not container.streams.video:
                return Inspected(0, "no video in it")
            stream = container.streams.video[0]
            stream.thread_count = 1  # files are what is inspected side by side
            promised = stream.frames
            for packet in container.demux(stream):
                packets += packet.size > 0
                if not error:
                    try:
                        frames += len(packet.decode())
                    except av.error.FFmpegError as wrong:
                        error = wrong.strerror
    except av.error.FFmpegError as wrong:
        error = error or wrong.strerror
    if packets < promised and _packets(path) < promised:
        return Inspected(frames, f"cut short: {frames} of {promised} frames")
    if error:
        return Inspected(frames, f"cannot be decoded{f' after {frames} frames' * (frames > 0)} ({error})")
    return Inspected(frames, "" if frames else "no frame in it")


def _packets(path: Path) -> int:
    """How many packets of a video there are, whatever part of them the file says is to be seen (its edit list)."""
    count = 0
    with contextlib.suppress(av.error.FFmpegError), _opened(path, {"ignore_editlist": "1"}) as container:
        for packet in container.demux(container.streams.video[0]):
            count += packet.size > 0
    return count


class UnreadableError(UserError):
    """A video that was whole when it was inspected, and is not any more."""


def read_frames(path: Path, wanted: Sequence[int]) -> Tensor:
    """Frames by their numbers, ascending, each as often as it is asked for: uint8 (frames, height, width, 3).

    Raises `UnreadableError` that names the file where it cannot be decoded so far.
    """
    found: dict[int, Any] = {}
    try:
        with _opened(path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # loader processes are what decodes side by side
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")
                if number >= wanted[-1]:
                    break
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: no video in it any more
        raise UnreadableError(f"{path}: cannot be decoded ({getattr(error, 'strerror', 'no video in it')})") from None
    missing = [number for number in wanted if number not in found]
    if missing:
        raise UnreadableError(f"{path}: no frame {missing[0]}: it was cut or changed")
    return torch.from_numpy(np.stack([found[number] for number in wanted]))


def _opened(path: Path, options: dict[str, str] | None = None) -> Any:
    # Titles may be in whatever encoding: nobody reads them here.
    return av.open(path, options=options, metadata_errors="ignore")


def write_video(path: Path, frames: np.ndarray[Any, Any], rate: int) -> None:
    """Write frames, uint8 (frames, height, width, 3), as an mp4 file from which the very same pixels are read."""
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_count = "rgb24", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())

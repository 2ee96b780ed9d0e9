"""Video files: what is in them, and frames of them, by PyAV (FFmpeg)."""

from __future__ import annotations

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
    """Read a file once, and decode its first frame. What cannot be read has a fault, in a few words, and no frames.

    A file that was cut has fewer frames than its header promises.
    """
    try:
        with av.open(path) as container:
            if not container.streams.video:
                return Inspected(0, "no video in it")
            stream = container.streams.video[0]
            next(container.decode(stream))
        with av.open(path) as container:
            stream = container.streams.video[0]
            promised = stream.frames
            found = sum(packet.size > 0 for packet in container.demux(stream))
    except StopIteration:
        return Inspected(0, "no frame in it")
    except av.error.FFmpegError as error:
        return Inspected(0, f"cannot be decoded ({error.strerror})")
    if found < promised:
        return Inspected(found, f"cut short: {found} of {promised} frames")
    return Inspected(found)


def read_frames(path: Path, wanted: Sequence[int]) -> Tensor:
    """Frames by their numbers, ascending, each as often as it is asked for: uint8 (frames, height, width, 3).

    Raises `UserError` that names the file where it cannot be decoded so far.
    """
    found: dict[int, Any] = {}
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # loader processes are what decodes side by side
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")
                if number >= wanted[-1]:
                    break
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: cannot be decoded ({error.strerror}); replace the file or take it away") from None
    missing = [number for number in wanted if number not in found]
    if missing:
        raise UserError(f"{path}: no frame {missing[0]}: it was cut or changed; replace the file or take it away")
    return torch.from_numpy(np.stack([found[number] for number in wanted]))


def write_video(path: Path, frames: np.ndarray[Any, Any], rate: int) -> None:
    """Write frames, uint8 (frames, height, width, 3), as an mp4 file from which the very same pixels are read."""
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_count = "rgb24", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())

"""From a video to what a model sees of it: which frames, which square of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from repro.config import Clip, Data
from repro.data.splits import Lost
from repro.data.video_decoding import UnreadableError, read_frames
from repro.data.video_listing import Videos, tolerated
from repro.errors import UserError
from repro.geometry import TimeSformer

VIEWS = 3  # of video-1: left, centre, right (above, centre, below in an upright video)


def frames_of_clip(total: int, frames: int, step: int, start: float) -> list[int]:
    """Which frames of `total` a clip has: `frames` of them, `step` apart, the first at a share `start` of what is free.

    Where the video is shorter than that, spread evenly over it from its first frame to its last.
    """
    span = (frames - 1) * step
    if span >= total:
        return [int(number) for number in np.linspace(0, total - 1, frames).round()]
    first = min(int(start * (total - span)), total - span - 1)
    return list(range(first, first + span + 1, step))


def scaled(frames: Tensor, short_side: int) -> Tensor:
    """Frames, uint8 (n, height, width, 3), as float32 (n, 3, height, width) in [0, 1], the shorter side as asked."""
    images = frames.permute(0, 3, 1, 2).float() / 255
    height, width = images.shape[2:]
    if min(height, width) == short_side:
        return images
    factor = short_side / min(height, width)
    size = [max(short_side, round(height * factor)), max(short_side, round(width * factor))]
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def spatial_crops(images: Tensor, size: int) -> list[Tensor]:
    """Three squares along the longer side, first, middle and last, of frames whose shorter side is `size`."""
    height, width = images.shape[2:]
    free_y, free_x = height - size, width - size
    return [images[:, :, y : y + size, x : x + size] for y, x in ((0, 0), (free_y // 2, free_x // 2), (free_y, free_x))]


@dataclass(frozen=True, eq=False)
class Clips:
    """Videos, each as a clip; decoded when asked for.

    `of` is what a clip is: `training` has its frames, square and side drawn by chance; `clip1` is the middle of the
    video and of its frames; `video1` the same frames in three squares, (3, frames, channels, height, width).

    In the place of a video that has broken since it was listed comes the next one of its class that has not: so all
    others stay where they were, and a resumed run sees what it would have seen. `lost` marks those.
    """

    folder: Path
    names: np.ndarray  # bytes, as in ImageFiles
    labels: Tensor
    totals: Tensor  # frames of each video
    shape: TimeSformer
    clip: Clip
    mean: Tensor
    std: Tensor
    of: Literal["training", "clip1", "video1"]
    places: Tensor  # of each video among those that were listed
    lost: Lost

    @classmethod
    def make(cls, videos: Videos, labels: Sequence[int], data: Data, shape: TimeSformer) -> Clips:
        """The videos' training clips; `as_` gives the others."""
        assert data.clip is not None
        encoded = np.array([os.fsencode(name) for name in videos.names])
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        counted, places = torch.tensor(videos.frames), torch.arange(len(encoded))
        lost = Lost(tuple(os.path.join(videos.folder.name, name) for name in videos.names))
        for place in np.flatnonzero(np.isin(videos.names, videos.lost)):
            lost.marks[place] = 1
        return cls(
            videos.folder, encoded, torch.tensor(labels), counted, shape, data.clip, mean, std, "training", places, lost
        )

    def as_(self, of: Literal["training", "clip1", "video1"]) -> Clips:
        """The same videos, as other clips."""
        return replace(self, of=of)

    @property
    def is_random(self) -> bool:
        """Whether a clip is drawn anew each time, from torch's global generator."""
        return self.of == "training"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        size, label = self.shape.image_size, int(self.labels[index])
        start = float(torch.rand(())) if self.is_random else 0.5
        frames = self._frames(index, start)
        if self.of == "training":
            return (self._drawn(frames) - self.mean) / self.std, label
        crops = spatial_crops(scaled(frames, size), size)
        seen = crops[1] if self.of == "clip1" else torch.stack(crops)
        return (seen - self.mean) / self.std, label

    def take(self, indices: Tensor) -> Clips:
        """These videos only."""
        return replace(
            self,
            names=self.names[indices.numpy()],
            labels=self.labels[indices],
            totals=self.totals[indices],
            places=self.places[indices],
        )

    def _frames(self, index: int, start: float) -> Tensor:
        """Frames of the video's clip, or, where it is lost, of the next one's of its class.

        Raises `UserError` where too many are.
        """
        alike = (self.labels == self.labels[index]).nonzero().flatten()
        alike = torch.cat([alike[alike >= index], alike[alike < index]])
        for other in alike.tolist():
            place = int(self.places[other])
            if self.lost.marks[place]:
                continue
            wanted = frames_of_clip(int(self.totals[other]), self.shape.frames, self.clip.frame_step, start)
            path = Path(os.path.join(self.folder, os.fsdecode(self.names[other])))
            try:
                return read_frames(path, wanted)
            except UnreadableError as error:
                self.lost.marks[place] = 1
                many, most = int(self.lost.marks.sum()), tolerated(len(self.lost.names))
                if many > most:
                    raise UserError(
                        f"{error}; {many} videos have broken since they were listed, at most {most} may; "
                        "put them back and launch again"
                    ) from None
                print(f"{error}; the next video of its class is taken for it", file=sys.stderr, flush=True)
        raise UserError(
            f"{self.folder}: no video of class {int(self.labels[index])} can be read any more; put them back"
        )

    def _drawn(self, frames: Tensor) -> Tensor:
        size, (low, high) = self.shape.image_size, self.clip.zoom
        zoom, down, right, mirror = torch.rand(4).tolist()
        images = scaled(frames, max(size, round(size * (low + (high - low) * zoom))))
        y, x = int(down * (images.shape[2] - size + 1)), int(right * (images.shape[3] - size + 1))
        square = images[:, :, y : y + size, x : x + size]
        return square.flip(-1) if mirror < 0.5 else square

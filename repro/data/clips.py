"""Clips of videos: which frames a model sees, and which square of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from repro.config import Clip, Data
from repro.counting.geometry import TimeSformer
from repro.data.folder_files import FolderFiles
from repro.data.listing import Listing
from repro.data.unreadable_files import UnreadableFiles
from repro.data.video_decoding import read_frames

Kind = Literal["training", "clip1", "video1"]


def clip_frames(total: int, frames: int, step: int, start: float) -> list[int]:
    """Return the frame numbers of a clip of `frames` frames, `step` apart, in a video of `total` frames.

    `start` in [0, 1) is the position of the clip in the video. If the video is shorter than the clip, the frames are
    spread evenly from its first to its last frame.
    """
    span = (frames - 1) * step
    if span >= total:
        return [int(number) for number in np.linspace(0, total - 1, frames).round()]
    first = min(int(start * (total - span)), total - span - 1)
    return list(range(first, first + span + 1, step))


def resized(frames: Tensor, short_side: int) -> Tensor:
    """Resize frames so that their shorter side has `short_side` pixels.

    Frames are uint8 (n, height, width, 3); the result is float32 (n, 3, height, width) in [0, 1].
    """
    images = frames.permute(0, 3, 1, 2).float() / 255
    height, width = images.shape[2:]
    if min(height, width) == short_side:
        return images
    factor = short_side / min(height, width)
    size = [max(short_side, round(height * factor)), max(short_side, round(width * factor))]
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def three_crops(images: Tensor, size: int) -> list[Tensor]:
    """Return the first, central and last square along the longer side of images whose shorter side is `size`."""
    height, width = images.shape[2:]
    free_y, free_x = height - size, width - size
    return [images[:, :, y : y + size, x : x + size] for y, x in ((0, 0), (free_y // 2, free_x // 2), (free_y, free_x))]


@dataclass(frozen=True, eq=False)
class Clips:
    """One clip of each video, decoded when it is indexed.

    An item is a normalised float32 clip of shape (frames, channels, height, width) and its class. The kind `training`
    takes a random position, crop and flip. `clip1` takes the middle of the video and the central square. `video1` takes
    the same frames in three crops, (3, frames, channels, height, width).
    """

    files: FolderFiles
    labels: Tensor  # the class of each video, int64 (videos,)
    totals: Tensor  # the number of frames of each video, int64 (videos,)
    shape: TimeSformer
    clip: Clip
    mean: Tensor
    std: Tensor
    kind: Kind
    unreadable: UnreadableFiles  # videos that became unreadable; others of their class replace them
    positions: Tensor  # the positions of the videos in `unreadable`, int64 (videos,)

    @classmethod
    def of(
        cls,
        videos: Listing,
        class_names: Sequence[str],
        data: Data,
        shape: TimeSformer,
        unreadable: Sequence[int] = (),
    ) -> Clips:
        """Return the training clips of inspected videos, labelled by indices into `class_names`."""
        assert data.clip is not None
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        return cls(
            files=FolderFiles.of(videos.folder, videos.names),
            labels=torch.tensor(videos.labels(class_names)),
            totals=torch.tensor(videos.lengths),
            shape=shape,
            clip=data.clip,
            mean=mean,
            std=std,
            kind="training",
            unreadable=UnreadableFiles(len(videos), unreadable),
            positions=torch.arange(len(videos)),
        )

    def as_kind(self, kind: Kind) -> Clips:
        """Return clips of another kind of the same videos."""
        return replace(self, kind=kind)

    @property
    def is_random(self) -> bool:
        """Whether clips are drawn with torch's global random generator."""
        return self.kind == "training"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        size, start = self.shape.image_size, float(torch.rand(())) if self.is_random else 0.5
        frames, label = self.unreadable.read(
            index, self.labels, self.positions, lambda video: self._read(video, start), self.is_random
        )
        if self.is_random:
            pixels = self._random_crop(frames)
        else:
            crops = three_crops(resized(frames, size), size)
            pixels = crops[1] if self.kind == "clip1" else torch.stack(crops)
        return (pixels - self.mean) / self.std, label

    def take(self, indices: Tensor) -> Clips:
        return replace(
            self,
            files=self.files.take(indices.numpy()),
            labels=self.labels[indices],
            totals=self.totals[indices],
            positions=self.positions[indices],
        )

    def _read(self, index: int, start: float) -> Tensor:
        numbers = clip_frames(int(self.totals[index]), self.shape.frames, self.clip.frame_step, start)
        return torch.from_numpy(read_frames(Path(self.files.name(index)), numbers))

    def _random_crop(self, frames: Tensor) -> Tensor:
        size, (low, high) = self.shape.image_size, self.clip.zoom
        zoom, down, right, flip = torch.rand(4).tolist()
        images = resized(frames, max(size, round(size * (low + (high - low) * zoom))))
        y, x = int(down * (images.shape[2] - size + 1)), int(right * (images.shape[3] - size + 1))
        crop = images[:, :, y : y + size, x : x + size]
        return crop.flip(-1) if flip < 0.5 else crop

"""Moving shapes: generated videos in 8 classes, as real mp4 files in Kinetics' layout.

The class is the kind of object, which rises or sinks, before clutter that stands still and says nothing of it, as in
the images (`repro.data.shapes`). Frames are wider than high, and the object is anywhere along them: a square in the
middle may cut it. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
import tempfile
from hashlib import blake2b
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from repro.config import Data, Recipe
from repro.data import shapes_drawing
from repro.data.cache import cache_folder, version
from repro.data.in_memory import digest
from repro.data.kinetics400 import splits_of
from repro.data.shapes_drawing import NAMES, Bools, Pixels, draw, own_centres, reach, scenes
from repro.data.splits import Splits
from repro.data.video_decoding import write_video
from repro.errors import UserError
from repro.geometry import Geometry
from repro.runs.files import write_json

TRAIN_VIDEOS, TEST_VIDEOS = 768, 256
FRAMES, RATE = 8, 8
WIDTH, HEIGHT = 32, 24
ZOOM = 0.7  # of the object against an image of WIDTH pixels
TRAVEL = 7 / WIDTH  # from the first frame to the last
_SEAL = "digests.json"  # what was drawn, and what the files were that it was written to
_BATCH = 64  # videos drawn at once


def load(data: Data, recipe: Recipe, model: Geometry) -> Splits:
    """768 training and 256 test videos, as many of each class, the same ones for every seed. As `kinetics400.load`."""
    folder, fingerprint = kept_videos(cache_folder(data))
    return splits_of(folder, data, recipe, model, fingerprint)


def kept_videos(root: Path) -> tuple[Path, str]:
    """The folder of the videos below `root`, and their digest: written once, whole or not at all, anew when damaged.

    Raises `UserError` where `root` cannot be written.
    """
    made_by = version(shapes_drawing, sys.modules[__name__])
    folder = root / f"shapes-video-{TRAIN_VIDEOS}-{TEST_VIDEOS}-{made_by}"
    known = _whole(folder)
    if known is not None:
        return folder, known
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(root / ".shapes-video.lock"),
            tempfile.TemporaryDirectory(prefix=".shapes-video-", dir=root) as at,
        ):
            known = _whole(folder)
            if known is not None:  # another run was quicker
                return folder, known
            made = Path(at) / "made"
            parts = [_write(made / split, stream, count) for split, stream, count in _parts()]
            pixels = digest(*(np.frombuffer(each, np.uint8) for each in parts))
            write_json(made / _SEAL, {"pixels": pixels, "files": _of_files(made)})
            if folder.exists():
                folder.rename(Path(at) / "damaged")
            made.rename(folder)
    except OSError as error:
        raise UserError(
            f"{root}: videos cannot be written there ({error.strerror}); set data.root to a folder that can be written"
        ) from None
    return folder, pixels


def _whole(folder: Path) -> str | None:
    """The digest of what is kept there; None where there is nothing, or a file is not as it was written."""
    try:
        said = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        return str(said["pixels"]) if said["files"] == _of_files(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_files(folder: Path) -> str:
    """16 hex digits of the names and bytes of all video files."""
    found = blake2b(digest_size=8)
    for path in sorted(folder.glob("*/*/*.mp4")):
        found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()


def videos(stream: int, indices: range) -> tuple[Pixels, NDArray[np.int64], Bools]:
    """Videos drawn: pixels, uint8 (n, frames, height, width, 3), classes (indices into `NAMES`), masks."""
    classes = np.array(indices) % len(NAMES)
    scene = scenes((2, stream), indices, WIDTH)
    far = reach(scene, ZOOM)
    # The middle of the way is where the object is in sight at both of its ends.
    free = np.maximum(0, HEIGHT / WIDTH / 2 - TRAVEL / 2 - far)
    across = own_centres(scene, ZOOM)
    middle = 0.5 + free * (2 * (across[:, 1] - far) / (1 - 2 * far) - 1)
    way = np.where(np.array(indices) // len(NAMES) % 2 == 0, -1.0, 1.0)  # half of each class rises, half sinks
    drawn = []
    for frame in range(FRAMES):
        down = middle + way * TRAVEL * (frame / (FRAMES - 1) - 0.5)
        drawn.append(draw(scene, classes, ZOOM, np.stack([across[:, 0], down], axis=1)))
    rows = slice((WIDTH - HEIGHT) // 2, (WIDTH + HEIGHT) // 2)
    pixels = np.stack([each for each, _ in drawn], axis=1)[:, :, rows]
    return pixels, classes, np.stack([mask for _, mask in drawn], axis=1)[:, :, rows]


def _parts() -> tuple[tuple[str, int, int], ...]:
    return (("train", 0, TRAIN_VIDEOS), ("val", 1, TEST_VIDEOS))


def _write(folder: Path, stream: int, count: int) -> bytes:
    """Write a split's videos; returns the digest of their pixels and classes."""
    seen = []
    for name in NAMES:
        (folder / name).mkdir(parents=True)
    for start in range(0, count, _BATCH):
        pixels, classes, _ = videos(stream, range(start, min(count, start + _BATCH)))
        for number, (video, label) in enumerate(zip(pixels, classes, strict=True), start=start):
            write_video(folder / NAMES[label] / f"{number:05d}.mp4", video, RATE)
        seen.append(digest(pixels, classes).encode())
    return b"".join(seen)

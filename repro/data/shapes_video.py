"""Moving shapes: generated videos in 8 classes, as real MP4 files in the layout of Kinetics.

The class is the kind of object, which moves up or down on static clutter. As in the images (`repro.data.shapes`), the
clutter does not depend on the class. Frames are wider than high and the object may be anywhere, so that a centre crop
may cut it.
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
from repro.counting.geometry import Geometry
from repro.data import kinetics400, shapes_drawing
from repro.data.cache import data_cache, source_digest
from repro.data.data_sets import split_sizes
from repro.data.in_memory import array_digest
from repro.data.shapes_drawing import NAMES, Bools, Pixels, draw, own_centres, reach, scenes
from repro.data.splits import Splits
from repro.data.video_decoding import write_video
from repro.errors import UserError
from repro.files import write_json

FRAMES, RATE = 8, 8
WIDTH, HEIGHT = 32, 24
ZOOM = 0.7  # size of the object relative to that in an image of WIDTH pixels
TRAVEL = 7 / WIDTH  # distance from the first frame to the last, relative to WIDTH
_DIGESTS = "digests.json"  # holds digests of the drawn pixels and of the written files
_BATCH = 64  # videos drawn at once


def load(data: Data, recipe: Recipe, model: Geometry, trained_on: str | None = None) -> Splits:
    """Load 768 training and 256 test videos as `kinetics400.load` does: balanced classes, the same for every seed."""
    folder, fingerprint = cached_videos(data_cache(data))
    return kinetics400.load(data.model_copy(update={"root": str(folder)}), recipe, model, fingerprint=fingerprint)


def cached_videos(root: Path) -> tuple[Path, str]:
    """Return the folder of the videos below `root`, and the digest of their pixels.

    The videos are written, atomically, if they are missing or damaged. Raises `UserError` if `root` cannot be written.
    """
    version, (n_train, n_test) = source_digest(shapes_drawing, sys.modules[__name__]), split_sizes("shapes_video")
    folder = root / f"shapes-video-{n_train}-{n_test}-{version}"
    pixels = _pixel_digest(folder)
    if pixels is not None:
        return folder, pixels
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(root / ".shapes-video.lock"),
            tempfile.TemporaryDirectory(prefix=".shapes-video-", dir=root) as temporary,
        ):
            pixels = _pixel_digest(folder)
            if pixels is not None:  # another process has written them in the meantime
                return folder, pixels
            new = Path(temporary) / "new"
            parts = _write(new / "train", 0, n_train), _write(new / "val", 1, n_test)
            pixels = array_digest(*(np.frombuffer(part, np.uint8) for part in parts))
            write_json(new / _DIGESTS, {"pixels": pixels, "files": _file_digest(new)})
            if folder.exists():
                folder.rename(Path(temporary) / "damaged")
            new.rename(folder)
    except OSError as error:
        raise UserError(
            f"{root}: videos cannot be written there ({error.strerror}); set data.root to a writable folder"
        ) from None
    return folder, pixels


def _pixel_digest(folder: Path) -> str | None:
    """Return the digest of the pixels in `folder`; None if files are missing or have changed."""
    try:
        digests = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        return str(digests["pixels"]) if digests["files"] == _file_digest(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_digest(folder: Path) -> str:
    """Return a digest of the names and bytes of all video files, 16 hex digits."""
    digest = blake2b(digest_size=8)
    for path in sorted(folder.glob("*/*/*.mp4")):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def videos(stream: int, indices: range) -> tuple[Pixels, NDArray[np.int64], Bools]:
    """Draw videos.

    Returns pixels, uint8 (n, frames, height, width, 3), classes as indices into `NAMES`, int64 (n,), and masks of the
    objects, bool (n, frames, height, width).
    """
    classes = np.array(indices) % len(NAMES)
    scene = scenes((2, stream), indices, WIDTH)
    radius = reach(scene, ZOOM)
    # The middle of the path is chosen so that the object is visible at both ends of the path.
    free = np.maximum(0, HEIGHT / WIDTH / 2 - TRAVEL / 2 - radius)
    centres = own_centres(scene, ZOOM)
    middle = 0.5 + free * (2 * (centres[:, 1] - radius) / (1 - 2 * radius) - 1)
    direction = np.where(np.array(indices) // len(NAMES) % 2 == 0, -1.0, 1.0)  # half of each class moves up, half down
    frames = []
    for frame in range(FRAMES):
        y = middle + direction * TRAVEL * (frame / (FRAMES - 1) - 0.5)
        frames.append(draw(scene, classes, ZOOM, np.stack([centres[:, 0], y], axis=1)))
    rows = slice((WIDTH - HEIGHT) // 2, (WIDTH + HEIGHT) // 2)
    pixels, masks = (np.stack(arrays, axis=1)[:, :, rows] for arrays in zip(*frames, strict=True))
    return pixels, classes, masks


def _write(folder: Path, stream: int, count: int) -> bytes:
    """Write a split's videos; return the digests of their pixels and classes."""
    digests = []
    for name in NAMES:
        (folder / name).mkdir(parents=True)
    for start in range(0, count, _BATCH):
        pixels, classes, _ = videos(stream, range(start, min(count, start + _BATCH)))
        for number, (video, label) in enumerate(zip(pixels, classes, strict=True), start=start):
            write_video(folder / NAMES[label] / f"{number:05d}.mp4", video, RATE)
        digests.append(array_digest(pixels, classes).encode())
    return b"".join(digests)

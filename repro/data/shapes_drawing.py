"""Draws shapes on clutter: pixels and masks as a function of an index, the same on every machine.

To be the same everywhere, drawing uses only operations that IEEE 754 rounds identically (no sine, no power), and the
raw words of the bit generator, which NumPy guarantees not to change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F64: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Pixels: TypeAlias = NDArray[np.uint8]

AREA = (0.105, 0.15)  # range of the object's share of the image before rasterisation
HUE_SPREAD = 1.25  # hue range of a kind, in distances between kinds; up to 1, hue alone would separate the kinds
MAX_TURN = 0.2  # tangent of half the largest rotation to either side, which is 22.6 degrees
LINES, BLOBS = 3, 5
BLOB_RADIUS = (0.03, 0.07)  # relative to the side of the image
NOISE = 0.05  # amplitude to either side, for pixels in [0, 1]
SUBPIXELS = 2  # per side of a pixel, which gives five levels of coverage at edges
_CHUNK = 256  # images drawn at once, so that their arrays fit in a CPU cache


def _triangle(x: F64, y: F64) -> Bools:
    slope = 1.7320508075688772
    return (y < 0.5) & (slope * x - y < 1) & (-slope * x - y < 1)


def _star(x: F64, y: F64) -> Bools:
    # A point is inside if it is inside at least four of the five edge lines, which lie cos(72 degrees) from the centre.
    normals = ((0.0, 1.0), (0.9510565162951535, 0.30901699437494745), (0.5877852522924731, -0.8090169943749475))
    sides = [normals[0], normals[1], normals[2], (-normals[2][0], normals[2][1]), (-normals[1][0], normals[1][1])]
    inside = sum((a * x + b * y < 0.30901699437494745).astype(np.int8) for a, b in sides)
    return np.asarray(inside >= 4)


# By kind: a function that tests whether a point is inside the shape (in the unit circle, y points down), and the area
# of the shape in the same units. Neighbours in this list are similar in hue, but not in shape.
KINDS: dict[str, tuple[Callable[[F64, F64], Bools], float]] = {
    "disc": (lambda x, y: x * x + y * y < 1, 3.141592653589793),
    "cross": (lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.95), 1.92),
    "square": (lambda x, y: np.maximum(abs(x), abs(y)) < 0.7, 1.96),
    "ring": (lambda x, y: (x * x + y * y < 1) & (x * x + y * y > 0.36), 2.0106192982974678),
    "triangle": (_triangle, 1.299038105676658),
    "bars": (lambda x, y: (abs(x) < 0.7) & (abs(y) < 0.7) & (abs(y) > 0.25), 1.26),
    "star": (_star, 1.1225699414489634),
    "hourglass": (lambda x, y: (abs(x) < 0.2 + 0.7 * abs(y)) & (abs(y) < 0.7) & (abs(x) < 0.7), 1.246),
}
NAMES = tuple(KINDS)

# The position of each number in a scene; all are uniform in [0, 1). Each line and each blob takes five numbers.
_AREA, _TURN, _PLACE, _HUE, _PALENESS = 0, 1, slice(2, 4), 4, 5
_GROUND, _TEXTURE, _WAVE = slice(6, 9), slice(9, 12), 12
_LINES = 15
_BLOBS = _LINES + 5 * LINES
_NUMBERS = _BLOBS + 5 * BLOBS


@dataclass(frozen=True, eq=False)
class Scenes:
    """Everything random in images: numbers in [0, 1), (scenes, n), and noise, uint8 (scenes, side, side, 3).

    A scene has no class, because it can be drawn with any kind of object.
    """

    numbers: F64
    noise: Pixels

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def side(self) -> int:
        """Width and height, in pixels."""
        return int(self.noise.shape[1])

    def take(self, which: slice) -> Scenes:
        """Return only these scenes."""
        return Scenes(self.numbers[which], self.noise[which])


def scenes(stream: Sequence[int], indices: Sequence[int], side: int) -> Scenes:
    """Generate scenes, each a function of (stream, index). Scenes of another size differ only in their noise."""
    words = _NUMBERS + -(-side * side * 3 // 8)
    raw = np.stack([np.random.PCG64([*stream, index]).random_raw(words) for index in indices])
    numbers: F64 = (raw[:, :_NUMBERS] >> np.uint64(11)).astype(np.float64) * 2.0**-53
    noise = raw[:, _NUMBERS:].astype("<u8").view(np.uint8)[:, : side * side * 3]
    return Scenes(numbers, noise.reshape(-1, side, side, 3))


def draw(
    scene: Scenes, kinds: NDArray[np.int64], zoom: float = 1.0, centres: F64 | None = None
) -> tuple[Pixels, Bools]:
    """Draw scenes with objects of these kinds.

    Args:
        scene: Scenes to draw.
        kinds: The kind of object in each scene, as an index into `NAMES`, (scenes,).
        zoom: Factor of the object's diameter.
        centres: x and y of the objects relative to the side of the image, (scenes, 2); None for `own_centres`.

    Returns:
        Pixels, uint8 (scenes, side, side, 3), and masks of the objects, bool (scenes, side, side).
    """
    centres = own_centres(scene, zoom) if centres is None else centres
    parts = [slice(start, start + _CHUNK) for start in range(0, len(scene), _CHUNK)]
    drawn = [_draw(scene.take(part), kinds[part], zoom, centres[part]) for part in parts]
    return np.concatenate([pixels for pixels, _ in drawn]), np.concatenate([masks for _, masks in drawn])


def reach(scene: Scenes, zoom: float = 1.0) -> F64:
    """Return the radius that the widest kind would have in each scene, (scenes,), relative to the side of the image."""
    return np.sqrt(zoom * zoom * _area(scene.numbers) / min(unit for _, unit in KINDS.values()))


def own_centres(scene: Scenes, zoom: float = 1.0) -> F64:
    """Return the centre of the object in each scene, (scenes, 2), which keeps even the widest kind inside the image."""
    radius = reach(scene, zoom)[:, None]
    return radius + (1 - 2 * radius) * scene.numbers[:, _PLACE]


def _draw(scene: Scenes, kinds: NDArray[np.int64], zoom: float, centres: F64) -> tuple[Pixels, Bools]:
    numbers = scene.numbers
    canvas = _background(scene)
    cover = np.empty(canvas.shape[:3])
    for kind in np.unique(kinds):
        rows = kinds == kind
        cover[rows] = _cover(NAMES[kind], numbers[rows], zoom, centres[rows], scene.side)
    hues = (kinds + 0.5 + HUE_SPREAD * (numbers[:, _HUE] - 0.5)) / len(KINDS)
    _paint(canvas, cover, _colours(hues, numbers[:, _PALENESS]))
    canvas += NOISE * (scene.noise / 127.5 - 1)
    pixels = np.floor(np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels, cover >= 0.5


def _background(scene: Scenes) -> F64:
    """Draw a dark ground with waves, and lines and blobs on it that are as light as objects.

    Returns an array of shape (n, side, side, 3) in [0, 1].
    """
    numbers, side = scene.numbers, scene.side
    x, y = _grid(side, 1)
    across, along = _direction(numbers[:, _WAVE])
    waves = _column(2 + 4 * numbers[:, _WAVE + 1])  # per image
    wave = waves * (_column(across) * x + _column(along) * y) + _column(numbers[:, _WAVE + 2])
    triangle = abs(wave - np.floor(wave) - 0.5)[..., None]  # in [0, 0.5]
    ground, texture = numbers[:, None, None, _GROUND], numbers[:, None, None, _TEXTURE]
    canvas: F64 = 0.4 * ground + 0.4 * (texture - 0.5) * triangle
    for first in range(_LINES, _BLOBS, 5):
        angle, middle, width, hue, paleness = numbers[:, first : first + 5].T
        across, along = _direction(angle)
        passed = _column(0.2 + 0.6 * middle)  # where the line crosses the diagonal
        distance = abs(_column(across) * (x - passed) + _column(along) * (y - passed))
        _paint(canvas, _soft(_column(0.01 + 0.02 * width) - distance, side), _colours(hue, paleness))
    low, high = BLOB_RADIUS
    for first in range(_BLOBS, _NUMBERS, 5):
        place_x, place_y, size, hue, paleness = numbers[:, first : first + 5].T
        right, down = x - _column(place_x), y - _column(place_y)
        radius = _column(low + (high - low) * size)
        _paint(canvas, _soft(radius - np.sqrt(right * right + down * down), side), _colours(hue, paleness))
    return canvas


def _area(numbers: F64) -> F64:
    """Return the area of the object relative to that of the image, which does not depend on the kind."""
    low, high = AREA
    return low + (high - low) * numbers[:, _AREA]


def _cover(kind: str, numbers: F64, zoom: float, centre: F64, side: int) -> F64:
    """Return the share of each pixel that the object covers, (n, side, side), in [0, 1]."""
    inside, unit_area = KINDS[kind]
    radius = np.sqrt(zoom * zoom * _area(numbers) / unit_area)
    cos, sin = _direction(MAX_TURN * numbers[:, _TURN] + (1 - MAX_TURN) / 2)
    x, y = _grid(side, SUBPIXELS)
    right = (x - _column(centre[:, 0])) / _column(radius)
    down = (y - _column(centre[:, 1])) / _column(radius)
    covered = inside(_column(cos) * right + _column(sin) * down, _column(cos) * down - _column(sin) * right)
    parts = covered.reshape(len(numbers), side, SUBPIXELS, side, SUBPIXELS)
    return np.asarray(parts.sum((2, 4), dtype=np.int64) / SUBPIXELS**2)


def _direction(number: F64) -> tuple[F64, F64]:
    """Map numbers in [0, 1) to unit vectors (cosine, sine) from -90 to 90 degrees, by the tangent of half the angle."""
    tangent = 2 * number - 1
    norm = 1 + tangent * tangent
    return (1 - tangent * tangent) / norm, 2 * tangent / norm


def _colours(hue: F64, paleness: F64) -> F64:
    """Return the RGB colours of hues, (n, 3), which are lighter than every ground; hues 0 and 1 are red."""
    turned = hue[:, None] + np.array([0, 2 / 3, 1 / 3])
    pure = np.clip(abs(6 * (turned - np.floor(turned)) - 3) - 1, 0, 1)
    low = 0.3 + 0.3 * paleness[:, None]
    return np.asarray(low + (1 - low) * pure)


def _paint(canvas: F64, alpha: F64, colour: F64) -> None:
    canvas += alpha[..., None] * (colour[:, None, None, :] - canvas)


def _soft(depth: F64, side: int) -> F64:
    """Return the coverage of pixels whose centres lie `depth` inside an edge, relative to the side of the image."""
    return np.clip(depth * side + 0.5, 0, 1)


def _grid(side: int, parts: int) -> tuple[F64, F64]:
    """Return x and y of the centres of (sub)pixels, in [0, 1], with shapes (1, 1, n) and (1, n, 1)."""
    centres = (np.arange(side * parts) + 0.5) / (side * parts)
    return centres[None, None, :], centres[None, :, None]


def _column(values: F64) -> F64:
    return values[:, None, None]

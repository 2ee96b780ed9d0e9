"""A figure as the calls that draw it: matplotlib walks through its parts once, and every format is drawn from that.

Most of what drawing costs is the walk: what ticks there are, what shows, where a text begins. It comes to the same for
each format, whose own part is to write the lines, markers and letters that it is told of.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, Bbox, Transform, TransformedPath


class Call(NamedTuple):
    """A renderer's method and what it was called with."""

    method: str
    values: tuple[Any, ...]
    options: dict[str, Any]


def recorded(figure: Figure) -> Recorded:
    """Walk through a figure, in dots of its resolution."""
    canvas: Any = FigureCanvasAgg(figure)
    recorder = Recorder(canvas.get_renderer())
    figure.draw(recorder)
    return Recorded(figure, recorder.calls)


class Recorder(RendererBase):
    """A renderer that draws nothing: it keeps each call, with a copy of whatever may change after it.

    Groups it does not keep. In an SVG they would number the parts, and be a fourth of its lines.

    Args:
        measure: a renderer that says what texts take, in its dots, which are the unit of all that is kept.
    """

    def __init__(self, measure: Any) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._measure = measure
        self._clips: dict[Any, Any] = {}

    def draw_path(self, *values: Any, **options: Any) -> None:
        """Keep a path."""
        self._keep("draw_path", values, options)

    def draw_markers(self, *values: Any, **options: Any) -> None:
        """Keep a marker and the places where it is set."""
        self._keep("draw_markers", values, options)

    def draw_path_collection(self, *values: Any, **options: Any) -> None:
        """Keep a collection of paths."""
        self._keep("draw_path_collection", values, options)

    def draw_quad_mesh(self, *values: Any, **options: Any) -> None:
        """Keep a mesh."""
        self._keep("draw_quad_mesh", values, options)

    def draw_image(self, *values: Any, **options: Any) -> None:
        """Keep a picture."""
        self._keep("draw_image", values, options)

    def draw_text(self, *values: Any, **options: Any) -> None:
        """Keep a line of text."""
        self._keep("draw_text", values, options)

    def start_rasterizing(self) -> None:
        """Keep that what follows is dots in every format."""
        self._keep("start_rasterizing", (), {})

    def stop_rasterizing(self) -> None:
        """Keep that it no longer is."""
        self._keep("stop_rasterizing", (), {})

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        """What a text takes, in dots."""
        width, height, descent = self._measure.get_text_width_height_descent(s, prop, ismath)
        return width, height, descent

    def points_to_pixels(self, points: Any) -> Any:
        """Dots of so many points."""
        return self._measure.points_to_pixels(points)

    def get_canvas_width_height(self) -> tuple[float, float]:
        """In dots."""
        width, height = self._measure.get_canvas_width_height()
        return width, height

    def flipy(self) -> bool:
        """Texts are kept from the bottom upwards, as everything else is."""
        return False

    def option_image_nocomposite(self) -> bool:
        """Pictures are kept one by one."""
        return True

    def option_scale_image(self) -> bool:
        """Pictures are kept with no more pixels than they have."""
        return True

    def _keep(self, method: str, values: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.calls.append(
            Call(method, tuple(map(self._frozen, values)), {name: self._frozen(o) for name, o in options.items()})
        )

    def _frozen(self, value: Any) -> Any:
        if isinstance(value, Transform):
            return value.frozen()
        return self._pen(value) if isinstance(value, GraphicsContextBase) else value

    def _pen(self, gc: GraphicsContextBase) -> GraphicsContextBase:
        """A copy of how something is drawn. Equal clips are one object, which is how formats know that they are."""
        pen = GraphicsContextBase()
        pen.copy_properties(gc)
        clip, (path, where) = _clips(gc)
        if clip is not None:
            pen.set_clip_rectangle(self._clips.setdefault(clip.bounds, Bbox.from_extents(*clip.extents)))
        if path is not None:
            one = (id(path), *where.get_matrix().flat)
            pen.set_clip_path(self._clips.setdefault(one, TransformedPath(path, where.frozen())))
        return pen


class Recorded(Figure):
    """A figure of the same size that is drawn by what was recorded of another."""

    def __init__(self, figure: Figure, calls: list[Call]) -> None:
        width_in, height_in = figure.get_size_inches()
        super().__init__(figsize=(width_in, height_in), dpi=figure.dpi)
        self._dots_per_inch, self._calls = figure.dpi, calls

    def draw(self, renderer: RendererBase) -> None:
        """Draw it, in the renderer's unit."""
        here = _Here(renderer, self._dots_per_inch)
        for call in self._calls:
            here.draw(call)


class _Here:
    """A renderer on which recorded calls are drawn, in a unit of its own."""

    def __init__(self, renderer: Any, recorded_dpi: float) -> None:
        self._renderer, self._recorded_dpi = renderer, recorded_dpi
        self._clips: dict[Any, Any] = {}
        self._measure()

    def draw(self, call: Call) -> None:
        """Draw one call."""
        method, values, options = call
        if method == "draw_text":
            values = self._text(*values)
        elif method == "draw_image":
            values = self._picture(*values)
        getattr(self._renderer, method)(
            *map(self._scaled, values), **{name: self._scaled(value) for name, value in options.items()}
        )
        if method in ("start_rasterizing", "stop_rasterizing"):  # a renderer may have another unit for dots
            self._measure()

    def _measure(self) -> None:
        self._scale = float(self._renderer.points_to_pixels(72.0) / self._recorded_dpi)

    def _scaled(self, value: Any) -> Any:
        if isinstance(value, Transform):
            return self._where(value)
        return self._pen(value) if isinstance(value, GraphicsContextBase) else value

    def _where(self, kept: Transform) -> Affine2D:
        matrix = kept.get_matrix().copy()
        matrix[:2] *= self._scale
        return Affine2D(matrix)

    def _pen(self, kept: GraphicsContextBase) -> GraphicsContextBase:
        """How something is drawn here: widths and dashes are in points everywhere."""
        pen: GraphicsContextBase = self._renderer.new_gc()
        pen.copy_properties(kept)
        clip, (path, where) = _clips(kept)
        if clip is not None:
            one = (self._scale, clip.bounds)
            if one not in self._clips:
                self._clips[one] = Bbox.from_extents(*(self._scale * edge for edge in clip.extents))
            pen.set_clip_rectangle(self._clips[one])
        if path is not None:
            one = (self._scale, id(path), *where.get_matrix().flat)
            if one not in self._clips:
                self._clips[one] = TransformedPath(path, self._where(where))
            pen.set_clip_path(self._clips[one])
        return pen

    def _text(self, pen: GraphicsContextBase, x: float, y: float, *what: Any) -> tuple[Any, ...]:
        x, y = x * self._scale, y * self._scale
        return (pen, x, self._renderer.get_canvas_width_height()[1] - y if self._renderer.flipy() else y, *what)

    def _picture(
        self, pen: GraphicsContextBase, x: float, y: float, picture: np.ndarray, where: Transform | None = None
    ) -> tuple[Any, ...]:
        x, y = x * self._scale, y * self._scale
        if where is None:
            return pen, x, y, picture
        if self._renderer.option_scale_image():
            return pen, x, y, picture, where
        return pen, *_in_dots(picture, self._where(where).translate(x, y), pen)


def _clips(gc: GraphicsContextBase) -> tuple[Bbox | None, Any]:
    """What something is cut off by: a rectangle, and a path with where it is, which matplotlib types as one already
    moved."""
    return gc.get_clip_rectangle(), gc.get_clip_path()


def _in_dots(picture: np.ndarray, where: Affine2D, pen: GraphicsContextBase) -> tuple[float, float, np.ndarray]:
    """The left and lower edge of a picture, and its colour at the middle of each dot, the lowest line first.

    Args:
        picture: (rows, columns, 4), of bytes.
        where: from the unit square, whose origin is the picture's first corner. Not turned.
        pen: how much of it shows, and how strongly.
    """
    corners, clip = where.transform([(0, 0), (1, 1)]), pen.get_clip_rectangle()
    if clip is not None:
        corners = corners.clip(clip.min, clip.max)
    (left, bottom), (right, top) = np.sort(np.floor(corners + 0.5).astype(int), axis=0)
    middles = np.arange(max(right - left, top - bottom))[:, None] + (left, bottom) + 0.5
    height, width = picture.shape[:2]
    places = (where.inverted().transform(middles) * (width, height)).astype(int).clip(0, (width - 1, height - 1))
    dots = picture[np.ix_(places[: top - bottom, 1], places[: right - left, 0])]
    dots[..., 3] = np.round(dots[..., 3] * pen.get_alpha())
    return float(left), float(bottom), dots

"""Where a figure's parts go: worked out once, and then fixed for each of the three formats.

matplotlib looks for the places of panels twice, and at every drawing for ticks and for the places of labels. All of it
comes to the same each time, and together it is longer than the drawing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator
from matplotlib.transforms import Bbox

from repro.report import typeface

DOTS_PER_INCH = 200


class _Measured:
    """A panel as it was measured once: how far what is around it reaches, and where its axes' names are, in dots.

    Both are the same distances from the panel's edges wherever the layout puts it, however large.
    """

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.reach: np.ndarray | None = None
        self.names: list[tuple[XAxis | YAxis, float]] = []

    def get_tightbbox(self, renderer: RendererBase | None = None, **options: Any) -> Bbox | None:
        """What `Axes.get_tightbbox` returns, asked of the panel the first time."""
        if self.reach is None:
            around = type(self.axes).get_tightbbox(self.axes, renderer, **options)
            if around is None:
                return None
            self.reach = np.subtract(around.extents, self.axes.bbox.extents)
            for axis in (self.axes.xaxis, self.axes.yaxis):
                place = axis.label.get_transform().transform(axis.label.get_position())
                self.names.append((axis, place[_across(axis)] - self._edge(axis)))
        return Bbox.from_extents(*np.add(self.axes.bbox.extents, self.reach))

    def fix(self) -> None:
        """Keep ticks and names where they are from now on."""
        for axis, distance in self.names:
            _fix_ticks(axis)
            place = axis.label.get_transform().transform(axis.label.get_position())
            place[_across(axis)] = self._edge(axis) + distance
            # In shares of the panel: the three formats have other points than the picture has dots.
            axis.set_label_coords(*self.axes.transAxes.inverted().transform(place))

    def _edge(self, axis: XAxis | YAxis) -> float:
        edge = {"bottom": 1, "top": 3, "left": 0, "right": 2}[axis.get_label_position()]
        return float(self.axes.bbox.extents[edge])


def lay_out(figure: Figure) -> None:
    """Put a figure's parts in their places, for good."""
    figure.dpi = DOTS_PER_INCH
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        if not typeface.has(text.get_text()):
            text.set_fontfamily([typeface.FAMILY, typeface.WHOLE])
    engine = figure.get_layout_engine()
    if engine is not None:
        with _asked_once(figure) as panels:
            engine.execute(figure)
        for panel in panels:
            panel.fix()
    figure.set_layout_engine("none")


@contextlib.contextmanager
def _asked_once(figure: Figure) -> Iterator[list[_Measured]]:
    """Panels that answer a layout from what they were measured the first time.

    Those that keep their shape (pictures, colour bars) are not among them: they do not fill the place that they are
    given, and are asked each time.
    """
    filling = [axes for axes in figure.axes if axes.get_aspect() == "auto" and axes.get_box_aspect() is None]
    panels = [_Measured(axes) for axes in filling]
    for panel in panels:
        vars(panel.axes)["get_tightbbox"] = panel.get_tightbbox
    try:
        yield panels
    finally:
        for panel in panels:
            del vars(panel.axes)["get_tightbbox"]


def _across(axis: XAxis | YAxis) -> int:
    """Which coordinate of its name says how far it is from the axis: the second of an x axis, the first of a y axis."""
    return 1 if axis.axis_name == "x" else 0


def _fix_ticks(axis: XAxis | YAxis) -> None:
    shown, places = axis.get_major_formatter(), [float(place) for place in axis.get_majorticklocs()]
    fixed = FixedFormatter(shown.format_ticks(places))
    fixed.set_offset_string(shown.get_offset())
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(fixed)
    if not shown.get_offset():  # which alone is placed by the tick labels
        for tick in axis.get_major_ticks(len(places)):
            tick.label1.set_in_layout(False)
            tick.label2.set_in_layout(False)

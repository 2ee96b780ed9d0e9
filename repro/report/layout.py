"""Where a figure's parts go. matplotlib looks for the places of panels twice, which comes to the same each time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from repro.report import typeface

DOTS_PER_INCH = 200


class _Measured:
    """A panel as it was measured once: how far what is around it reaches, in dots.

    That is the same distance from the panel's edges wherever the layout puts it, however large.
    """

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.reach: np.ndarray | None = None

    def get_tightbbox(self, renderer: RendererBase | None = None, **options: Any) -> Bbox | None:
        """What `Axes.get_tightbbox` returns, asked of the panel the first time."""
        if self.reach is None:
            around = type(self.axes).get_tightbbox(self.axes, renderer, **options)
            if around is None:
                return None
            self.reach = np.subtract(around.extents, self.axes.bbox.extents)
        return Bbox.from_extents(*np.add(self.axes.bbox.extents, self.reach))


def lay_out(figure: Figure) -> None:
    """Put a figure's parts in their places, for good."""
    figure.dpi = DOTS_PER_INCH
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        if not typeface.has(text.get_text()):
            text.set_fontfamily([typeface.FAMILY, typeface.WHOLE])
    engine = figure.get_layout_engine()
    if engine is not None:
        with _asked_once(figure):
            engine.execute(figure)
    figure.set_layout_engine("none")


@contextlib.contextmanager
def _asked_once(figure: Figure) -> Iterator[None]:
    """Panels that answer a layout from what they were measured the first time.

    Those that keep their shape (pictures, colour bars) are not among them: they do not fill the place that they are
    given, and are asked each time.
    """
    filling = [axes for axes in figure.axes if axes.get_aspect() == "auto" and axes.get_box_aspect() is None]
    panels = [_Measured(axes) for axes in filling]
    for panel in panels:
        vars(panel.axes)["get_tightbbox"] = panel.get_tightbbox
    try:
        yield
    finally:
        for panel in panels:
            del vars(panel.axes)["get_tightbbox"]

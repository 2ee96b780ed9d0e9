"""How figures look: one style, colours that colour-blind readers can tell apart, and files that are the same twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repro.report import typeface
from repro.report.layout import DOTS_PER_INCH, lay_out
from repro.report.recording import recorded
from repro.runs.files import replacing

# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which is too light for a hollow marker on white,
# and with Tol's wine for the black, which is the reference's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#777777", "#CC79A7", "#882255")
# As many as there are colours plus one: the pair of both repeats only after 72 methods, and grey print has the marker.
MARKERS = ("o", "s", "^", "v", "<", ">", "D", "P", "X")
REFERENCE_COLOUR = "#333333"

STYLE: Any = {  # matplotlib's type for this is a literal of every parameter
    "font.family": typeface.use(),
    "text.parse_math": False,  # a dollar is one
    "font.size": 8,
    # One face, and ASCII's minus: a PDF holds a cut-out of each font it needs, and cutting is most of its time.
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # at the top of its panel: matplotlib would look at each drawing for ticks up there
    "axes.unicode_minus": False,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6e8",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "svg.hashsalt": "repro",
    "pdf.fonttype": 42,
}
_MOST_TICKS = 5
ENDINGS = ("svg", "png", "pdf")
# Without what would make a file another one tomorrow. The SVG has the mark and comes last: with it, the other two are
# there.
_UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
# Hardly larger than at matplotlib's 6, in half the time.
_WRITTEN_WITH: Mapping[str, dict[str, Any]] = {"png": {"pil_kwargs": {"compress_level": 3}}}
_CANVASES: Mapping[str, type[FigureCanvasBase]] = {
    "svg": FigureCanvasSVG,
    "png": FigureCanvasAgg,
    "pdf": FigureCanvasPdf,
}


@dataclass(frozen=True)
class Look:
    """Colour and marker of one method."""

    colour: str
    marker: str


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look for each method, by the order in which they come; the same for the same table."""
    return {
        method: Look(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])
        for index, method in enumerate(dict.fromkeys(methods))
    }


def few_ticks(axes: Axes) -> None:
    """Five numbers on an axis say as much as nine, and are drawn three times."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(_MOST_TICKS))


def write_figure(folder: Path, name: str, drawn_from: str, draw: Callable[[], Figure | None]) -> list[Path]:
    """Write `<name>.svg`, `.png` and `.pdf`, each atomically and without a date; returns their paths.

    `drawn_from` is all that the figure shows, as text. Files that were drawn from the same by the same code are left
    as they are: drawing is most of a report's time. Empty where `draw` gives no figure.
    """
    mark = f"drawn from {_digest(drawn_from)}"
    paths = [folder / f"{name}.{ending}" for ending in ENDINGS]
    if all(path.is_file() and path.stat().st_size for path in paths) and mark in _head(folder / f"{name}.svg"):
        return paths
    with mpl.rc_context(STYLE):
        figure = draw()
        if figure is None:
            return []
        lay_out(figure)
        picture = recorded(figure)
        for ending in _UNDATED:
            marked = {"Description": mark} if ending == "svg" else {}
            with replacing(folder / f"{name}.{ending}", is_kept=False) as temporary:
                save(picture, temporary, ending, {**_UNDATED[ending], **marked})
    return paths


def save(figure: Figure, path: Path, ending: str, metadata: dict[str, Any]) -> None:
    """Write a laid-out figure as `svg`, `png` or `pdf`.

    Straight by the canvas: `savefig` walks through the whole figure twice, the first time for a layout that it has.
    """
    canvas = _CANVASES[ending](figure)
    try:
        getattr(canvas, f"print_{ending}")(path, metadata=metadata, **_WRITTEN_WITH.get(ending, {}))
    finally:
        figure.dpi = DOTS_PER_INCH  # SVG and PDF have points of their own


def _digest(text: str) -> str:
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(mpl.__version__.encode() + code + text.encode()).hexdigest()


def _head(path: Path) -> str:
    with path.open(encoding="utf-8") as stream:
        return stream.read(4000)

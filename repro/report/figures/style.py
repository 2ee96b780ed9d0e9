"""The common style of figures: two widths, colours that are safe for colour-blind readers, and panels without gaps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repro.tables.rows import Row, Table

# Figures are drawn in the width in which they are printed: the text width of a NeurIPS page, or one of two columns.
PAGE_IN, COLUMN_IN = 5.5, 3.25
MOST_HEIGHT_IN = 9.0  # text height of a NeurIPS page
SMALLEST_PT = 7.0

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too light for a hollow marker on white, and
# with Tol's wine instead of black, since black is used for the reference.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#777777", "#CC79A7", "#882255")
# One more than there are colours: pairs repeat only after 72 methods, and markers are distinguishable in greyscale.
MARKERS = ("o", "s", "^", "v", "<", ">", "D", "P", "X")
PAPER, INK, QUIET, GRID = "#ffffff", "#1d2329", "#5c6670", "#e3e6e8"
DASHED = (0, (4, 2))

STYLE: Any = {  # matplotlib types the keys as a Literal of all parameters
    "text.parse_math": False,  # a dollar sign is literal text
    "font.size": 7.5,
    # Not black: matplotlib omits black from an SVG, so the dark variant could not replace it.
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 8,
    "axes.titley": 1.0,  # fixed, so that matplotlib does not check for ticks at the top in every draw
    "axes.unicode_minus": False,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.titlesize": 8,
    "figure.labelsize": 7.5,
    "legend.fontsize": SMALLEST_PT,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.0,
    "lines.markersize": 4.5,
    "xtick.labelsize": SMALLEST_PT,
    "ytick.labelsize": SMALLEST_PT,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.hashsalt": "repro",
    "pdf.fonttype": 42,
}
_MOST_TICKS = 5
_CHARACTER_EM = 0.58  # mean width of a character, with a margin
_POINTS_PER_IN = 72
_LEGEND_WIDTH = 0.97  # widest legend, as a fraction of the figure's width


@dataclass(frozen=True)
class Look:
    """Colour and marker of one method."""

    colour: str
    marker: str


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Return a look for each method, assigned in order of appearance, so that it is the same for the same table."""
    return {
        method: Look(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])
        for index, method in enumerate(dict.fromkeys(methods))
    }


def method_looks(table: Table) -> dict[str, Look]:
    """Return a look for each method of a table, independent of the rows shown, so that a method keeps its colour."""
    references = {row.id: row for name in {row.backbone for row in table.rows} if (row := table.reference(name))}
    methods = looks(row.method for row in table.every_row if row.id not in references)
    return methods | {row.method: Look(INK, "*") for row in references.values()}


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return a figure of this size with constrained layout."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def n_across(width_in: float, on_page: int) -> int:
    """Return the number of panels per row: `on_page` in page width, panels at most 5 % narrower in column width."""
    return on_page if width_in >= PAGE_IN else max(1, int(on_page * width_in / PAGE_IN / 0.95))


def panels(
    width_in: float,
    count: int,
    across: int,
    panel_in: float,
    around_in: float,
    *,
    same_y: bool = True,
    same_width: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, in rows of at most `across`; each row fills the width.

    Args:
        panel_in, around_in: height of a row of panels, and of everything above and below the panels, in inches.
        same_y: whether all panels share the y axis.
        same_width: whether all panels are equally wide, so that the end of the last row may stay free.
    """
    across = min(across, count)
    down = math.ceil(count / across)
    figure = new_figure(width_in, panel_in * down + around_in)
    lines = [count // down + (line < count % down) for line in range(down)]
    if same_width:
        lines = [min(across, count - across * line) for line in range(down)]
    grid = figure.add_gridspec(down, across if same_width else math.lcm(*lines))
    axes: list[Axes] = []
    for line, in_line in enumerate(lines):
        span = 1 if same_width else grid.ncols // in_line
        for place in range(in_line):
            first = axes[0] if axes else None
            own = figure.add_subplot(grid[line, span * place : span * (place + 1)], sharey=first if same_y else None)
            own.tick_params(labelleft=place == 0 or not same_y)
            axes.append(own)
    return figure, axes


def at_distance(places: Sequence[float], step: float, least: float = -math.inf, most: float = math.inf) -> list[float]:
    """Move positions as little as possible (least squares) such that they are at least `step` apart, in their order.

    They stay between `least` and `most`, or below `most` if they do not fit between the two.
    """
    from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]  # late: it takes a quarter of a second

    if not places:
        return []
    order, steps = np.argsort(places, kind="stable"), step * np.arange(len(places))
    moved = np.empty(len(places))
    apart = isotonic_regression(np.asarray(places)[order] - steps).x + steps
    moved[order] = np.clip(apart, least + steps, most - steps[::-1])
    return [float(place) for place in moved]


def label_axes(figure: Figure, x: str, y: str) -> None:
    """Set axis labels that are shared by all panels."""
    figure.supylabel(within(y, figure.get_figheight() - 0.6), multialignment="center")
    figure.supxlabel(within(x, figure.get_figwidth() - 0.2))


def few_ticks(axes: Axes, *, whole: bool = False) -> None:
    """Reduce the number of ticks: five are as informative as nine, and each text is drawn three times."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(_MOST_TICKS, integer=whole and axis is axes.xaxis))


def within(label: str, length_in: float, size_pt: float = STYLE["axes.labelsize"]) -> str:
    """Wrap a label into lines that fit a length, such as that of the figure's side."""
    room = int(length_in * _POINTS_PER_IN / size_pt / _CHARACTER_EM)
    return "\n".join(textwrap.fill(line, max(room, 1)) for line in label.splitlines())


def title(figure: Figure, text: str) -> None:
    """Set the title of a whole figure."""
    size = STYLE["figure.titlesize"]
    figure.suptitle(within(text, figure.get_figwidth() - 0.1, size), fontsize=size)


def add_legend(figure: Figure, keys: Sequence[Artist], place: Literal["lower", "upper"]) -> None:
    """Place the legend below all panels, or above if there is a label below, in as many columns as fit."""
    loc: Any = f"outside {place} center"  # matplotlib types it as a Literal of all locations
    for columns in range(min(len(keys), 6), 0, -1):
        legend = figure.legend(handles=list(keys), loc=loc, ncols=columns)
        if columns == 1 or legend.get_window_extent().width < _LEGEND_WIDTH * figure.bbox.width:
            return
        legend.remove()


def key(label: str, look: Look, **changes: Any) -> Line2D:
    """Return a legend handle with a method's marker."""
    style = {"linestyle": "none", "color": look.colour, "marker": look.marker, **changes}
    return Line2D([], [], label=label, **style)


def levels(row: Row) -> str:
    """Describe what a row removes: `50 % sparsity, 10 % of tokens dropped`; empty for the dense row."""
    parts = [f"{row.arch_sparsity_pct:g} % sparsity"] if row.arch_sparsity_pct else []
    return ", ".join([*parts, *([f"{row.data_sparsity_pct:g} % of tokens dropped"] if row.data_sparsity_pct else [])])


def row_label(table: Table, row: Row) -> str:
    """Return a method with what it removes: `SViTE+, 50 % sparsity, 10 % of tokens dropped`."""
    return ", ".join(filter(None, [table.label(row.method), levels(row)]))

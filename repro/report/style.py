"""How figures look: one style, colours that colour-blind readers can tell apart, and files that are the same twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.runs.files import replacing

# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which is too light for a hollow marker on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#777777", "#CC79A7", "#000000")
# As many as there are colours plus one: the pair of both repeats only after 72 methods, and grey print has the marker.
MARKERS = ("o", "s", "^", "v", "<", ">", "D", "P", "X")
REFERENCE_COLOUR = "#333333"

STYLE: Any = {  # matplotlib's type for this is a literal of every parameter
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a figure looks the same everywhere
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
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
_DOTS_PER_INCH = 200
_UNDATED: Mapping[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
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


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg`, `.png` and `.pdf`, each atomically and without a date; returns their paths."""
    FigureCanvasAgg(figure)
    written = []
    with mpl.rc_context(STYLE):
        for ending, metadata in _UNDATED.items():
            path = folder / f"{name}.{ending}"
            with replacing(path) as temporary:
                figure.savefig(temporary, format=ending, dpi=_DOTS_PER_INCH, metadata=metadata)
            written.append(path)
    return written

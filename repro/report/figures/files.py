"""Write figures to files: in both widths, light and dark, byte-identical for the same data."""

from __future__ import annotations

import colorsys
import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.files import replacing
from repro.report.figures.style import COLUMN_IN, PAGE_IN, PAPER, STYLE

Draw = Callable[[float], Figure | None]
COLUMN = "-column"
DARK_PAPER = "#15191d"  # background of the dark page (templates/style.css)
# Metadata without dates and versions, so that files are reproducible.
_UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
_DOTS_PER_INCH = 300
_COLOUR = re.compile(r"(?<=: )#[0-9a-f]{6}\b")
_COMMENT, _INDENTED, _LONG_FRACTION = re.compile(r"<!--.*?-->"), re.compile(r"\s*\n\s*"), re.compile(r"(\.\d{3})\d+")
_SURFACE = 0.88  # lightness above which a colour is treated as background or grid, not as ink


def figure_files(folder: Path, name: str) -> list[Path]:
    """Return the files of a figure, in page and column width. The first contains the mark and is written last."""
    return [folder / f"{name}{ending}" for ending in (".svg", ".png", ".pdf", f"{COLUMN}.svg", f"{COLUMN}.pdf")]


def is_current(folder: Path, name: str, drawn_from: str) -> bool:
    """Return whether all files of a figure exist and were drawn from the same data by the same code."""
    paths = figure_files(folder, name)
    return all(path.is_file() and path.stat().st_size for path in paths) and _mark(drawn_from) in _head(paths[0])


def write_figure(folder: Path, name: str, drawn_from: str, draw: Draw) -> list[Path]:
    """Write the files of a figure, each atomically and without a date; return their paths.

    Files that were drawn from the same data by the same code are left as they are, because drawing takes most of a
    report's time. `drawn_from` is everything that the figure depends on, as text. Nothing is written if there is
    nothing to draw.
    """
    paths = figure_files(folder, name)
    if is_current(folder, name, drawn_from):
        return paths
    mark = _mark(drawn_from)
    for width_in, suffix, endings in ((COLUMN_IN, COLUMN, ("pdf", "svg")), (PAGE_IN, "", ("png", "pdf", "svg"))):
        figure = drawn(draw, width_in)
        if figure is None:
            return []
        with mpl.rc_context(STYLE):
            for ending in endings:
                marked = {"Description": mark} if ending == "svg" else {}
                with replacing(folder / f"{name}{suffix}.{ending}", durable=False) as temporary:
                    metadata = {**_UNDATED[ending], **marked}
                    figure.savefig(temporary, format=ending, dpi=_DOTS_PER_INCH, metadata=metadata)
    return paths


def drawn(draw: Draw, width_in: float) -> Figure | None:
    """Draw a figure in the common style, and compute its layout once."""
    with mpl.rc_context(STYLE):
        figure = draw(width_in)
        if figure is not None:
            # With any engine, even the placeholder that "none" sets, `savefig` draws each format twice.
            FigureCanvasAgg(figure)
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
        return figure


def light_and_dark(svg: str) -> str:
    """Return an SVG for the page: smaller, and with a second set of colours for dark mode."""
    colours = sorted(set(_COLOUR.findall(svg)))
    light, dark = (
        "".join(f"--c{place}:{shown(colour)};" for place, colour in enumerate(colours)) for shown in (str, dark_colour)
    )
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    svg = _COLOUR.sub(lambda found: f"var(--c{colours.index(found[0])})", svg)
    svg = _LONG_FRACTION.sub(r"\1", _INDENTED.sub("\n", _COMMENT.sub("", svg)))
    return svg.replace("<defs>", f"{style}<defs>", 1)


def dark_colour(colour: str) -> str:
    """Return the counterpart of a colour on a dark page: the same hue with inverted lightness."""
    if colour == PAPER:
        return DARK_PAPER
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    turned = 0.9 - 0.5 * lightness if lightness < _SURFACE else 1.1 - lightness
    parts = colorsys.hls_to_rgb(hue, turned, 0.8 * saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _mark(drawn_from: str) -> str:
    return f"drawn from {hashlib.sha256(_code() + drawn_from.encode()).hexdigest()}"


@functools.cache
def _code() -> bytes:
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return mpl.__version__.encode() + b"".join(path.read_bytes() for path in files)


def _head(path: Path) -> str:
    with path.open(encoding="utf-8") as stream:
        return stream.read(4000)

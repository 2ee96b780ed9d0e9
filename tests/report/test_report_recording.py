"""A figure that was walked through once is in every format what matplotlib draws, which walks through it each time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from repro.report.layout import DOTS_PER_INCH
from repro.report.recording import recorded
from repro.report.style import STYLE, save

SIZE_IN = (4.0, 3.0)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
WITHOUT_DATE = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
GROUP = re.compile(r"<g id=|</g>")
STROKES = (" m", " l", " c", "S", "f", "B", " cm", " Do", " TJ", " Tf")
# Where a text is centred, by widths that were measured in dots and not in points.
FROM_HERE_PT = 0.7


def empty() -> Figure:
    figure = Figure(figsize=SIZE_IN)
    figure.dpi = DOTS_PER_INCH
    return figure


def lines() -> Figure:
    """Lines, markers, error bars, a band, a dashed line beyond the axes, a legend."""
    figure = empty()
    axes = figure.subplots()
    axes.plot([0, 1, 2, 3], [1, 3, 2, 9], marker="o", markerfacecolor="white", alpha=0.5, label="hollow")
    axes.errorbar([0, 1, 2], [2, 2, 1], yerr=[0.1, 0.5, 0.2], xerr=0.1, fmt="^", capsize=2, label="with errors")
    axes.fill_between([0, 1, 2], [0, 1, 1], [1, 2, 3], alpha=0.15, linewidth=0)
    axes.axhline(2.5, linestyle=(0, (5, 3)))
    axes.set(xlim=(0.5, 2.8), ylim=(0, 4), xlabel="below", ylabel="two lines\nbeside")
    figure.legend(loc="upper center", ncols=2)
    return figure


def texts() -> Figure:
    """Turned, outlined, in another colour, beyond the clip, and not all of one typeface."""
    figure = empty()
    axes = figure.subplots()
    axes.text(0.2, 0.3, "turned", rotation=30, color="#D55E00", ha="center")
    outline = [Stroke(linewidth=2, foreground="white"), Normal()]
    axes.annotate("outlined", (0.5, 0.5), xytext=(6, -2), textcoords="offset points", path_effects=outline)
    axes.text(0.9, 0.9, "cut off by its panel", clip_on=True)
    axes.set_title("Straße, αβγ ≥ 1")
    return figure


def pictures() -> Figure:
    """With the first line above and below, larger than their panel, with a colour bar, hatched over, cut by a shape."""
    figure = empty()
    above, below, part, cut = figure.subplots(2, 2).flat
    values = np.arange(12.0).reshape(3, 4)
    shown = above.imshow(values, cmap="cividis", aspect="auto", interpolation="none", extent=(0, 1, 2.5, -0.5))
    figure.colorbar(shown, ax=above)
    below.imshow(values, origin="lower", interpolation="none", alpha=0.4)
    below.add_patch(Rectangle((0, 0), 2, 1, facecolor=(0.8, 0.4, 0.0, 0.6), edgecolor="white", hatch="///"))
    part.imshow(values, cmap=ListedColormap(["#e3e6e8", "#0072B2"]), interpolation="none")
    part.set(xlim=(0.3, 2.2), ylim=(1.7, 0.1))
    cut.imshow(np.linspace(0, 1, 75).reshape(5, 5, 3), interpolation="nearest").set_clip_path(
        Rectangle((1, 1), 2, 2, transform=cut.transData)
    )
    return figure


def dots_within() -> Figure:
    """Some of it is to be dots in every format, between two parts that are not."""
    figure = empty()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    axes.pcolormesh(np.arange(20.0).reshape(4, 5) / 10, rasterized=True, zorder=3)
    axes.plot([0, 1], [1, 0], zorder=4)
    return figure


FIGURES = pytest.mark.parametrize("draw", [lines, texts, pictures, dots_within])


def both(draw: Callable[[], Figure], ending: str, folder: Path) -> tuple[Path, Path]:
    """Ours and matplotlib's."""
    with mpl.rc_context({**STYLE, "pdf.compression": 0}):
        for name, figure in (("ours", recorded(draw())), ("theirs", draw())):
            save(figure, folder / f"{name}.{ending}", ending, WITHOUT_DATE[ending])
    return folder / f"ours.{ending}", folder / f"theirs.{ending}"


@FIGURES
def test_a_picture_is_the_same_dot_by_dot(draw: Callable[[], Figure], tmp_path: Path) -> None:
    ours, theirs = (np.asarray(Image.open(path)) for path in both(draw, "png", tmp_path))
    assert ours.shape == (SIZE_IN[1] * DOTS_PER_INCH, SIZE_IN[0] * DOTS_PER_INCH, 4)
    assert np.unique(ours).size > 2
    np.testing.assert_array_equal(ours, theirs)


@FIGURES
@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_a_drawing_has_the_same_parts_in_the_same_places(
    draw: Callable[[], Figure], ending: str, tmp_path: Path
) -> None:
    ours, theirs = (parts(path) for path in both(draw, ending, tmp_path))
    assert ours[0] == theirs[0]
    assert len(ours[1]) > 50
    np.testing.assert_allclose(ours[1], theirs[1], atol=FROM_HERE_PT)


def parts(path: Path) -> tuple[str, list[float]]:
    """What a drawing says but for its numbers, and its numbers."""
    text = path.read_bytes().decode("latin-1")
    if path.suffix == ".pdf":  # without what is set between strokes: equal clips are set less often
        page = text[text.index("stream\n") : text.index("endstream")]
        text = "\n".join(line for line in page.splitlines() if line.endswith(STROKES))
    else:  # without what only numbers the parts
        text = "\n".join(line.strip() for line in text.splitlines() if not GROUP.search(line))
    # The names of clips and hatches are made of where these are.
    for place, name in enumerate(dict.fromkeys(re.findall(r'id="([ph][0-9a-f]{10})"', text))):
        text = text.replace(name, f"name{place}")
    return NUMBER.sub("#", text), [float(number) for number in NUMBER.findall(text)]

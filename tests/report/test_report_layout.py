"""A layout that asks each panel once puts everything where matplotlib does, which asks twice."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from repro.report.layout import DOTS_PER_INCH, lay_out
from repro.report.recording import recorded
from repro.report.style import STYLE, few_ticks, save, write_figure


def several_panels(highest: float = 80_000.0) -> Figure:
    """Two rows of panels that share an x axis by column, with wide and narrow numbers, a colour bar and a legend."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    grid = figure.subplots(2, 3, sharex="col")
    for place, axes in enumerate(grid.flat):
        axes.plot([0, 1, 2], [0, 1, highest if place == 4 else 7], label=f"line {place}")
        axes.set_title(f"panel {place}")
        few_ticks(axes)
    grid[0][0].set_ylabel("accuracy (%),\nof two lines")
    grid[1][0].set_ylabel("accuracy (%)")
    grid[1][1].set_xlabel("MACs (G),\nof the published backbone")
    picture = grid[0][2].imshow(np.eye(3), aspect="auto")
    figure.colorbar(picture, ax=grid, label="percent", shrink=0.8)
    figure.suptitle("all of them")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def drawn(figure: Figure) -> dict[str, Bbox]:
    """Where a drawn figure's panels, names and numbers are, in dots."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    found = {}
    for place, axes in enumerate(figure.axes):
        found[f"panel {place}"] = axes.get_window_extent()
        for axis in (axes.xaxis, axes.yaxis):
            if axis.label.get_text():
                found[f"name {place} {axis.axis_name}"] = axis.label.get_window_extent(renderer)
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if tick.label1.get_visible() and tick.label1.get_text() and low <= tick.get_loc() <= high:
                    where = tick.label1.get_window_extent(renderer)
                    found[f"number {place} {axis.axis_name} {tick.label1.get_text()}"] = where
    return found


def test_everything_is_where_matplotlib_puts_it() -> None:
    with mpl.rc_context(STYLE):
        ours, theirs = several_panels(), several_panels()
        lay_out(ours)
        recorded(ours)
        theirs.dpi = DOTS_PER_INCH
        FigureCanvasAgg(theirs).draw()
        mine, others = drawn(ours), drawn(theirs)
    assert mine.keys() == others.keys()
    assert sum(name.startswith("name") for name in mine) == 4
    for name, where in mine.items():
        assert where.extents == pytest.approx(others[name].extents, abs=4.0), name  # a fiftieth of an inch


def test_names_keep_clear_of_numbers() -> None:
    """The widest numbers are in the middle of the second row: its name would lie upon them where it was not moved."""
    with mpl.rc_context(STYLE):
        figure = several_panels()
        figure.axes[4].set_ylabel("beside wide numbers")
        lay_out(figure)
        recorded(figure)
        where = drawn(figure)
    name = where["name 4 y"]
    numbers = [box for key, box in where.items() if key.startswith("number 4 y")]
    assert len(numbers) >= 4
    assert name.x1 < min(box.x0 for box in numbers)
    assert name.x0 > where["panel 3"].x1


def test_what_is_taken_out_of_numbers_stays_beside_them(tmp_path: Path) -> None:
    """matplotlib writes 1e7 once, at the end of an axis, and short numbers along it."""
    with mpl.rc_context(STYLE):
        figure = several_panels(highest=8e7)
        lay_out(figure)
        save(recorded(figure), tmp_path / "x.svg", "svg", {})
    assert figure.axes[4].yaxis.get_offset_text().get_text() == "1e7"
    assert "<!-- 1e7 -->" in (tmp_path / "x.svg").read_text(encoding="utf-8")


def test_a_dollar_is_a_dollar(tmp_path: Path) -> None:
    """Two of them would otherwise be mathematics, and a wrong formula the end of the report."""

    def draw() -> Figure:
        figure = Figure(figsize=(2, 1), layout="constrained")
        figure.subplots().set_title(r"$\fra{1$")
        return figure

    (svg, *_) = write_figure(tmp_path, "x", "x", draw)
    assert r"<!-- $\fra{1$ -->" in svg.read_text(encoding="utf-8")

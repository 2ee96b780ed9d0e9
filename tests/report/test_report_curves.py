"""Training curves: means over seeds, one panel for each method with levels, levels told apart in colour and in grey."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from report_records import write_record

from repro.report.collect import gather
from repro.report.curve_figure import apart, mean_curve, shade
from repro.report.more_figures import drawings
from repro.report.style import COLOURS
from repro.rows import Row, Table


def write_curve(root: Path, row: Row, seed: int, accuracies: dict[int, float]) -> None:
    lines = [{"kind": "eval", "update": 22 * e, "epoch": e, "top1_pct": top1} for e, top1 in accuracies.items()]
    record = write_record(root, row, "local", seed)
    record.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_curves_are_means_over_seeds(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_small/svite-30"])
    for seed, shift in ((0, 0.0), (1, 4.0)):
        write_curve(tmp_path, row, seed, {epoch: 10.0 * epoch + shift for epoch in (1, 2)})
    _, (evidence,) = gather(table, [row], "local", [0, 1], tmp_path)
    curve = mean_curve(evidence)
    assert curve["mean"].to_dict() == {1.0: 12.0, 2.0: 22.0}
    assert curve["std"].to_dict() == pytest.approx({1.0: 8**0.5, 2.0: 8**0.5})


def test_each_method_with_levels_has_a_panel_and_each_line_its_name(table: Table, tmp_path: Path) -> None:
    ends = {
        "deit_small/dense": 80.0,
        "deit_small/svite-30": 79.0,
        "deit_small/svite-50": 70.0,
        "deit_small/svite-70": 60.0,
        "deit_small/svite_plus-5-50": 50.0,
        "deit_small/svite_plus-30-50": 40.0,
        "deit_small/omp-50": 75.0,
        "deit_small/ssp-40": 65.0,
        "deit_tiny/dense": 72.0,
        "deit_tiny/svite-30": 71.0,
    }
    rows = table.select(list(ends))
    for row in rows:
        write_curve(tmp_path, row, 0, {1: 10.0, 2: ends[row.id]})
    frame, every = gather(table, rows, "local", [0], tmp_path)
    figure = {one.name: one.draw for one in drawings(frame, table, every)}["curves"]()
    assert figure is not None
    shown = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    names = {title: [text.get_text() for text in axes.texts] for title, axes in shown.items()}
    assert names == {
        "DeiT-Tiny, SViTE": ["30", "Dense"],
        "DeiT-Small, SViTE": ["70", "50", "30", "Dense"],  # from below, as the lines end
        "DeiT-Small, SViTE+": ["30, 50", "5, 50", "Dense"],
        "DeiT-Small, one level each": ["SSP 40", "OMP 50", "Dense"],
    }
    lines = {str(line.get_label()): line for line in shown["DeiT-Small, SViTE"].lines}
    assert [float(line.get_ydata()[-1]) for line in lines.values()] == [80.0, 79.0, 70.0, 60.0]  # type: ignore[index]
    greys = [grey(line.get_color()) for name, line in lines.items() if name != "Dense"]
    assert greys == sorted(greys)
    assert min(second - first for first, second in zip(greys, greys[1:], strict=False)) > 0.1
    assert lines["Dense"].get_linestyle() == "--"


def grey(colour: str | tuple[float, float, float]) -> float:
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("colour", COLOURS)
def test_five_levels_of_any_colour_differ_in_grey(colour: str) -> None:
    greys = [grey(shade(colour, place / 4)) for place in range(5)]
    assert min(second - first for first, second in zip(greys, greys[1:], strict=False)) > 0.05
    assert greys[-1] < 0.95, "to be seen on white"


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 5))
def test_labels_are_apart_in_order_and_below_the_top(heights: list[float], gap: float) -> None:
    heights.sort()
    moved = apart(heights, gap, 100.0)
    assert len(moved) == len(heights)
    assert all(second - first > gap - 1e-6 for first, second in zip(moved, moved[1:], strict=False))
    assert max(moved, default=0.0) <= 100.0


def test_labels_with_room_stay_where_they_are() -> None:
    assert apart([10.0, 20.0, 21.0], 5.0, 100.0) == [10.0, 20.0, 25.0]
    assert apart([97.0, 99.0], 5.0, 100.0) == [95.0, 100.0]

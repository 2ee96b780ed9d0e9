"""Training curves: means over seeds, a panel for each method with levels, distinguishable in colour and greyscale."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from report_records import view_of_results, write_record

from repro.notebook import Report
from repro.report.collect import collect_results
from repro.report.figures.curves import draw_curves, mean_curve, shade
from repro.report.figures.drawings import drawings
from repro.report.figures.files import drawn
from repro.report.figures.style import COLOURS, PAGE_IN, at_distance
from repro.runs.record import Record
from repro.tables.rows import Row, Table


def write_curve(root: Path, row: Row, seed: int, accuracies: dict[int, float]) -> None:
    write_evaluations(write_record(root, row, "local", seed), accuracies)


def write_evaluations(record: Record, accuracies: dict[int, float]) -> None:
    lines = [{"kind": "eval", "update": 22 * e, "epoch": e, "top1_pct": top1} for e, top1 in accuracies.items()]
    record.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_curves_are_means_over_seeds(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_small/svite-30"])
    for seed, shift in ((0, 0.0), (1, 4.0)):
        write_curve(tmp_path, row, seed, {epoch: 10.0 * epoch + shift for epoch in (1, 2)})
    (evidence,) = collect_results(table, [row], "local", [0, 1], tmp_path).evidence
    curve = mean_curve(evidence)
    assert curve["mean"].to_dict() == {1.0: 12.0, 2.0: 22.0}
    assert curve["std"].to_dict() == pytest.approx({1.0: 8**0.5, 2.0: 8**0.5})


@pytest.mark.parametrize(
    ("row_id", "overrides", "earlier"),
    [
        ("deit_small/dense", [], 0),
        ("deit_small/omp-50", [], 3),  # half of dense's six epochs
        ("deit_small/tp-50", ["recipe.epochs=4"], 2),
        ("deit_small/ssp-40", ["method.finetune.after=1.0"], 6),  # the finished model
        ("deit_small/gmp-50", [], 0),
        ("deit_small/gmp-50", ["method.starts_from=dense"], 6),
        ("deit_small/gmp-50", ["method.starts_from=pretrained"], 0),
    ],
)
def test_a_curve_begins_where_the_shared_training_ends(
    table: Table, tmp_path: Path, row_id: str, overrides: list[str], earlier: float
) -> None:
    (row,) = table.select([row_id])
    record = write_record(tmp_path, row, "local", 0, overrides=overrides)
    write_evaluations(record, {2: 95.0, 3: 97.0})
    results = collect_results(table, [row], "local", [0], tmp_path, overrides)
    (evidence,) = results.evidence
    assert mean_curve(evidence)["mean"].to_dict() == {earlier + 2: 95.0, earlier + 3: 97.0}
    curves = Report(view_of_results(results)).curves
    assert curves[f"{row_id} seed 0"].to_dict() == {earlier + 2: 95.0, earlier + 3: 97.0}
    (caption,) = (one.caption for one in drawings(results) if one.name == "table1_curves_deit_small")
    assert caption.endswith("begin where the training that they share ends.") == bool(earlier)


def test_a_curve_that_begins_later_ends_beside_dense(table: Table, tmp_path: Path) -> None:
    rows = table.select(["deit_small/dense", "deit_small/omp-50", "deit_small/svite-30", "deit_small/svite-50"])
    for row in rows:
        write_curve(tmp_path, row, 0, {2: 95.0, 3: 97.0} if row.method == "omp" else {2: 88.0, 4: 95.0, 6: 96.0})
    results = collect_results(table, rows, "local", [0], tmp_path)
    figure = drawn(lambda width_in: draw_curves(results, "deit_small", width_in), PAGE_IN)
    assert figure is not None
    svite, others = figure.axes
    ends = {str(line.get_label()): list(line.get_xdata()) for axes in (svite, others) for line in axes.lines}  # type: ignore[arg-type]
    assert ends == {"Dense": [2, 4, 6], "30 %": [2, 4, 6], "50 %": [2, 4, 6], "OMP 50 %": [5, 6]}
    assert svite.get_xlim()[0] == others.get_xlim()[0]
    assert 6 < svite.get_xlim()[1] < others.get_xlim()[1], "its labels are shorter"


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
    results = collect_results(table, rows, "local", [0], tmp_path)
    names, figures = {}, {}
    for backbone in ("deit_tiny", "deit_small"):
        figure = figures[backbone] = drawn(
            lambda width_in, name=backbone: draw_curves(results, name, width_in), PAGE_IN
        )
        assert figure is not None
        assert figure.get_suptitle() == table.label(backbone)
        assert figure.get_supylabel() == "digits top-1, each epoch (%)\nlocal scale, not ImageNet"
        for axes in figure.axes:
            names[f"{backbone}: {axes.get_title()}"] = [text.get_text().strip() for text in axes.texts]
    assert names == {
        "deit_tiny: all methods by sparsity": ["SViTE 30 %", "Dense"],
        "deit_small: SViTE by sparsity": ["70 %", "50 %", "30 %", "Dense"],  # bottom to top, as lines end
        "deit_small: SViTE+, 50 % sparsity, by tokens\ndropped": ["30 %", "5 %", "Dense"],
        "deit_small: other methods by sparsity": ["SSP 40 %", "OMP 50 %", "Dense"],
    }
    assert figures["deit_small"] is not None
    shown = {axes.get_title(): axes for axes in figures["deit_small"].axes}
    lines = {str(line.get_label()): line for line in shown["SViTE by sparsity"].lines}
    assert [float(line.get_ydata()[-1]) for line in lines.values()] == [80.0, 79.0, 70.0, 60.0]  # type: ignore[index]
    greys = [grey(line.get_color()) for name, line in lines.items() if name != "Dense"]
    assert greys == sorted(greys)
    assert min(second - first for first, second in itertools.pairwise(greys)) > 0.1
    assert lines["Dense"].get_linestyle() == "--"


def grey(colour: str | tuple[float, float, float]) -> float:
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("colour", COLOURS)
def test_five_levels_of_any_colour_differ_in_grey(colour: str) -> None:
    greys = [grey(shade(colour, place / 4)) for place in range(5)]
    assert min(second - first for first, second in itertools.pairwise(greys)) > 0.05
    assert greys[-1] < 0.95, "to be seen on white"


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 5))
def test_labels_are_apart_in_order_and_below_the_top(heights: list[float], gap: float) -> None:
    heights.sort()
    moved = at_distance(heights, gap, most=100.0)
    assert len(moved) == len(heights)
    assert all(second - first > gap - 1e-6 for first, second in itertools.pairwise(moved))
    assert max(moved, default=0.0) <= 100.0


def test_labels_with_room_stay_where_they_are() -> None:
    assert at_distance([10.0, 20.0, 21.0], 5.0, 0.0, 100.0) == [10.0, 18.0, 23.0]
    assert at_distance([97.0, 99.0], 5.0, 0.0, 100.0) == [95.0, 100.0]
    assert at_distance([0.0, 1.0], 5.0, 0.0, 100.0) == [0.0, 5.0]

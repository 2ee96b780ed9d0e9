"""Figure 1 and similar figures: what is drawn where, and that files are reproducible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from report_records import write_record

from repro.report.cells import Results, RowCells
from repro.report.collect import collect_results
from repro.report.figures.accuracy import local_scatter, published_scatter, sparsity_scatter
from repro.report.figures.drawings import drawings
from repro.report.figures.files import drawn, figure_files, write_figure
from repro.report.figures.style import COLOURS, MARKERS, PAGE_IN, PAPER, at_distance, looks
from repro.report.points import counted_macs_g, measured_point, published_points
from repro.tables.loader import load_table
from repro.tables.rows import Table


def marked(figure: Figure, panel: int) -> dict[bool, list[tuple[float, float]]]:
    """Return the points of a panel, keyed by whether their markers are solid."""
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for container in figure.axes[panel].containers:
        line = container.lines[0]  # type: ignore[attr-defined]
        found[to_hex(line.get_markerfacecolor()) != PAPER] += [tuple(point) for point in np.asarray(line.get_xydata())]
    return found


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def by_row(results: Results) -> dict[str, RowCells]:
    return {row.row.id: row for row in results.rows}


def test_published_hollow_and_measured_solid_on_the_papers_axes(results: dict[str, Results]) -> None:
    figure = drawn(published_scatter(results["paper"]).draw, PAGE_IN)
    assert figure is not None
    assert titles(figure) == ["DeiT-Tiny", "DeiT-Small", "DeiT-Base"]
    assert figure.get_supylabel() == "ImageNet top-1, best epoch (%)"
    # The dense row has a point for each source that differs: 72.2 and 71.81 for DeiT-Tiny.
    assert [len(marked(figure, panel)[False]) for panel in range(3)] == [6, 17, 16]
    assert sorted(y for x, y in marked(figure, 0)[False] if x > 1.2) == [71.81, 72.2]
    assert [len(marked(figure, panel)[True]) for panel in range(3)] == [2, 4, 0]
    assert any(y == pytest.approx(81.2) for _, y in marked(figure, 1)[True])


def test_many_points_of_few_macs_do_not_reach_below_zero(tmp_path: Path) -> None:
    table = load_table("table2")
    rows = table.select(["resnet50/*"])
    for row in rows:
        write_record(tmp_path, row, "local", 0)
    results = collect_results(table, rows, "local", [0], tmp_path)
    figure = drawn(local_scatter(results).draw, PAGE_IN)
    assert figure is not None
    at = [x for x, _ in marked(figure, 0)[True]]
    least = min(counted_macs_g(row.context.cost) for row in results.rows)
    assert len(at) == len(rows)
    assert min(at) == pytest.approx(least)


def test_a_key_is_solid_only_if_its_method_was_measured(results: dict[str, Results]) -> None:
    figure = published_scatter(results["paper"]).draw(PAGE_IN)
    assert figure is not None
    keys = {str(key.get_label()): to_hex(key.get_markerfacecolor()) for key in figure.legends[0].legend_handles}  # type: ignore[union-attr]
    solid = {label for label, face in keys.items() if face != PAPER}
    assert solid == {"SViTE", "S2ViTE", "SViTE+ (5, 10, 30 % of tokens dropped)", "Dense", "measured"}


def test_a_caption_names_measured_points_only_where_there_are_any(results: dict[str, Results]) -> None:
    captions = {scale: next(drawings(results[scale])).caption for scale in ("paper", "local")}
    assert " and measured (solid); " in captions["paper"]
    assert "Bars are 95 % intervals" in captions["paper"]
    assert "measured" not in captions["local"]
    assert captions["local"].endswith("one line for each source.")


def test_a_caption_names_backbones_without_a_panel(tmp_path: Path) -> None:
    table = load_table("table3")
    found = collect_results(table, table.rows, "paper", [0], tmp_path)
    assert published_scatter(found).without_panel == ["DeiT-Base 384"]
    assert next(drawings(found)).caption.endswith(" No panel for DeiT-Base 384: a single row.")
    alone = collect_results(table, table.select(["deit_base_384/dense"]), "paper", [0], tmp_path)
    assert published_scatter(alone).without_panel == [], "nothing else to show"


def test_local_accuracies_have_a_figure_of_their_own(results: dict[str, Results]) -> None:
    published = drawn(published_scatter(results["local"]).draw, PAGE_IN)
    local = drawn(local_scatter(results["local"]).draw, PAGE_IN)
    assert published is not None
    assert local is not None
    assert not any(marked(published, panel)[True] for panel in range(3))
    assert titles(local) == ["DeiT-Tiny", "DeiT-Small"], "no run of DeiT-Base is finished"
    assert local.get_supylabel() == "digits top-1, best epoch (%)\nlocal scale, not ImageNet"
    assert local.get_supxlabel() == "MACs per image (G), figure convention, of the published backbone"
    assert [marked(local, panel)[False] for panel in range(2)] == [[], []]
    assert [len(marked(local, panel)[True]) for panel in range(2)] == [2, 4]
    assert local_scatter(results["paper"]).draw(PAGE_IN) is None


def test_sparsities_are_levels_with_methods_at_distance(results: dict[str, Results]) -> None:
    figure = drawn(sparsity_scatter(results["local"]).draw, PAGE_IN)
    assert figure is not None
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks == [["0", "30"], ["0", "30", "40", "50"]]
    assert figure.get_supxlabel() == "sparsity level of the weights (%)", "30 is as far from 0 as from 40"
    assert at_distance([1.0, 3.0, 3.0, 3.0, 5.0], 0.5) == [1.0, 2.5, 3.0, 3.5, 5.0]
    # Two points at 3 take 2.5 to 3.5, which moves their neighbour; all three stay around their mean.
    assert at_distance([3.0, 3.0, 2.25, 5.0], 1.0) == [2.75, 3.75, 1.75, 5.0]


def test_an_accuracy_has_the_wider_of_two_intervals(results: dict[str, Results]) -> None:
    """Three seeds within 0.1 points of 94.2 %: on 360 images, Wilson's interval is 91.3 to 96.2."""
    point = measured_point(by_row(results["local"])["deit_small/svite_plus-5-50"], 1.0)
    assert point is not None
    assert (point.y, point.y_low, point.y_high) == pytest.approx((94.18, 91.26, 96.16), abs=0.01)
    one = measured_point(by_row(results["local"])["deit_small/svite-40"], 1.0)
    assert one is not None
    assert one.y_low < one.y < one.y_high


def test_a_published_point_by_hand(results: dict[str, Results]) -> None:
    rows = by_row(results["paper"])
    # 4.598882 G * (1 - 0.277) = 3.324992 G; 0.4 points of it are 0.018396 G
    (point,) = published_points(rows["deit_small/svite-30"])
    assert (point.x, point.x_error) == pytest.approx((3.324992, 0.018396), abs=1e-5)
    assert (point.y_low, point.y, point.y_high) == pytest.approx((80.45, 80.48, 80.51))
    # The published 23.7 % are not in the figure's convention, so the counted MACs place this point.
    row = rows["deit_tiny/s2vite-30"]
    (point,) = published_points(row)
    assert point.x == counted_macs_g(row.context.cost) == pytest.approx(1.2536832 * (1 - 0.2843249), abs=1e-6)
    assert published_points(rows["deit_small/tp-50"]) == []


def test_a_published_point_stands_where_no_run_of_other_images_can_move_it(tmp_path: Path) -> None:
    tokens = load_table("table3")
    names = ["deit_small/ia_red2", "deit_base/ia_red2", "deit_base_384/ia_red2", "deit_small/linformer"]
    rows = by_row(collect_results(tokens, tokens.select(names), "local", [0], tmp_path))
    (small,), (base,), large, (mixed,) = (published_points(rows[name]) for name in names)
    assert (small.x, small.y) == (3.2, 79.1)
    assert (base.x, base.y) == (pytest.approx(17.563 * (1 - 0.3296), abs=0.001), 80.9), "by its published saving"
    assert large == [], "its MACs are published nowhere, and rest on what the interpreter keeps"
    assert mixed.x == counted_macs_g(rows["deit_small/linformer"].context.cost)


def test_files_are_the_same_twice(results: dict[str, Results], tmp_path: Path) -> None:
    def write(folder: Path) -> list[Path]:
        return write_figure(folder, "figure1", "data", published_scatter(results["paper"]).draw)

    first, second = write(tmp_path / "one"), write(tmp_path / "two")
    names = ["figure1.svg", "figure1.png", "figure1.pdf", "figure1-column.svg", "figure1-column.pdf"]
    assert [path.name for path in first] == names
    assert first == figure_files(tmp_path / "one", "figure1")
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_rows_without_an_accuracy_have_no_figure(table: Table, tmp_path: Path) -> None:
    found = collect_results(table, table.select(["deit_tiny/tp-30"]), "smoke", [0], tmp_path)
    assert published_scatter(found).draw(PAGE_IN) is None


def test_methods_keep_their_looks_and_differ() -> None:
    found = looks(["a", "b", "a", *"cdefgh"])
    assert len({(look.colour, look.marker) for look in found.values()}) == 8
    assert found == {**looks("ab"), **found}
    many = looks(str(index) for index in range(len(COLOURS) * len(MARKERS)))
    assert len({(look.colour, look.marker) for look in many.values()}) == 72


def test_a_method_keeps_its_colour_when_backbones_are_left_out(results: dict[str, Results], table: Table) -> None:
    whole = results["paper"]
    part = Results(table, "paper", [row for row in whole.rows if row.row.backbone == "deit_small"])
    legends = []
    for shown in (whole, part):
        figure = published_scatter(shown).draw(PAGE_IN)
        assert figure is not None
        keys = figure.legends[0].legend_handles
        legends.append({key.get_label(): (key.get_color(), key.get_marker()) for key in keys})  # type: ignore[union-attr]
    assert legends[0].items() >= legends[1].items()
    assert legends[1]["SViTE"] == (COLOURS[0], MARKERS[0])

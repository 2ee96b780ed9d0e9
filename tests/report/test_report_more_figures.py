"""Figures other than figure 1: drawn from records alone, and only if there is data for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from report_records import write_record

from repro.files import write_json
from repro.report.cells import Results
from repro.report.collect import collect_results
from repro.report.figures.anatomy import draw_tokens
from repro.report.figures.cost import draw_cost
from repro.report.figures.curves import accuracy_curve
from repro.report.figures.drawings import drawings, write_figures
from repro.report.figures.files import drawn
from repro.report.figures.pending import pending_figures
from repro.report.figures.style import PAGE_IN
from repro.runs.record import Record
from repro.runs.schemas import ANATOMY_SCHEMA
from repro.tables.loader import load_table
from repro.tables.rows import Table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, table: Table) -> Path:
    root = tmp_path_factory.mktemp("figures")
    structured, tokens = table.select(["deit_small/s2vite-40", "deit_small/svite_plus-10-50"])
    for row in (structured, tokens):
        record = write_record(root, row, "local", 0)
        lines = [{"kind": "train", "update": 22 * epoch, "loss": 1.0} for epoch in range(1, 4)]
        lines += [{"kind": "eval", "update": 22 * e, "epoch": e, "top1_pct": 10.0 * e} for e in (1, 2, 3, 3)]
        text = "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "eval", "upd'
        record.metrics_file.write_text(text, encoding="utf-8")
        heads = [[True] * 4 + [False] * 2] * 3 if row is structured else [[True] * 6] * 3
        found = {"schema": ANATOMY_SCHEMA, "heads": heads}
        if row is tokens:
            found |= {"images": np.zeros((4, 8, 8)).tolist(), "kept": [[[True] * 15 + [False]] * 4], "patch_size": 2}
        write_json(record.path / "anatomy.json", found)
    return root


def test_curves_are_the_evaluations_in_order_each_once(root: Path) -> None:
    (path,) = (root / "table1" / "deit_small" / "s2vite-40" / "local").iterdir()
    assert accuracy_curve(Record(path)) == [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]
    assert accuracy_curve(Record(root)) == []


def test_every_figure_is_drawn_from_what_it_needs(table: Table, root: Path, tmp_path: Path) -> None:
    rows = table.select(["deit_small/s2vite-40", "deit_small/svite_plus-10-50"])
    results = collect_results(table, rows, "local", [0], root)
    shown = {one.name: drawn(one.draw, PAGE_IN) for one in drawings(results)}
    counts = {name.removeprefix("table1_"): len(figure.findobj(Axes)) for name, figure in shown.items() if figure}
    # Without the dense row there is nothing to compare with, so there is no cost figure.
    assert counts == {"figure1": 1, "local": 1, "sparsity": 1, "curves_deit_small": 1, "heads": 1, "tokens": 8}
    tokens = shown["table1_tokens"]
    assert tokens is not None
    assert tokens.get_suptitle() == "Patches kept, local scale, one seed"
    panels = tokens.findobj(Axes)
    assert [axes.get_title() for axes in panels] == ["image", "kept"] * 2 + ["image", "kept"] * 2
    assert [len(axes.patches) for axes in panels] == [0, 1] * 4
    corner = panels[1].patches[0].get_corners()[0]
    assert tuple(corner) == (5.5, 5.5)  # patch 15 of 16 on an 8x8 image
    # The row drops 10 %: here, one of sixteen patches.
    words = "DeiT-Small, SViTE+, 50 % sparsity, 10 % of tokens dropped: 6.25 % of these patches dropped"
    assert " ".join(tokens.subfigs[0].get_suptitle().split()) == words
    written, paths = write_figures(results, tmp_path)
    assert [one.name.removeprefix("table1_") for one in written] == list(counts)
    endings = (".svg", ".png", ".pdf", "-column.svg", "-column.pdf")
    assert {path.name for path in paths} == {f"{one.name}{ending}" for one in written for ending in endings}


def test_every_stage_stands_beside_the_image(tmp_path: Path) -> None:
    """With three stages, a strip of eight panels has two images."""
    table = load_table("table3")
    (row,) = table.select(["deit_small/ia_red2"])
    record = write_record(tmp_path, row, "local", 0)
    kept = [[[True] * count + [False] * (16 - count)] * 3 for count in (12, 8, 0)]
    found = {"schema": ANATOMY_SCHEMA, "heads": [], "images": np.zeros((3, 8, 8)).tolist(), "kept": kept}
    for is_drawn in (False, True):
        if is_drawn:
            write_json(record.path / "anatomy.json", {**found, "patch_size": 2})
        every = collect_results(table, [row], "local", [0], tmp_path).evidence
        figure = draw_tokens(table, every, PAGE_IN)
        assert (figure is not None) is is_drawn
        assert ("patches kept" in pending_figures(table, every, "local")) is not is_drawn
    assert figure is not None
    panels = figure.findobj(Axes)
    assert [axes.get_title() for axes in panels] == ["image", "stage 1", "stage 2", "stage 3"] * 2
    assert [len(axes.patches) for axes in panels] == [0, 4, 8, 16] * 2
    assert figure.subfigs[0].get_suptitle().endswith(": 25, 50, 100 % of these patches dropped")


def test_without_runs_there_are_published_values_only(table: Table, tmp_path: Path) -> None:
    written, _ = write_figures(collect_results(table, table.rows, "local", [0], tmp_path), tmp_path)
    assert [one.name for one in written] == ["figure1"]


def test_what_is_saved_against_the_paired_gain(results: dict[str, Results]) -> None:
    figure = drawn(lambda width_in: draw_cost(results["paper"], width_in), PAGE_IN)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["Parameters", "FLOPs (table convention)"], "no row is timed"
    row = next(row for row in results["paper"].rows if row.row.id == "deit_small/svite_plus-5-50")
    cost, gain = row.context.cost, row.measured["top1_gain_pct"].value
    for axes, saving in zip(figure.axes, (cost.params_saving_pct, cost.flops_saving_pct), strict=True):
        points = [point for one in axes.containers for point in np.asarray(one.lines[0].get_xydata())]  # type: ignore[attr-defined]
        assert any(point == pytest.approx((saving, gain)) for point in points)
    assert "ImageNet" not in figure.get_supylabel()

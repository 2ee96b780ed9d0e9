"""The figures beside figure 1: drawn from records alone, and only what there are data for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_records import write_record

from repro.paper_tables import load_table
from repro.report.collect import gather
from repro.report.curve_figure import accuracy_curve
from repro.report.extracts import awaited
from repro.report.more_figures import draw_tokens, drawings, more_figures
from repro.rows import Table
from repro.runs.contents import ANATOMY_SCHEMA
from repro.runs.files import write_json


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
            found |= {"images": np.zeros((2, 8, 8)).tolist(), "kept": [[[True] * 15 + [False]] * 2], "patch_size": 2}
        write_json(record.path / "anatomy.json", found)
    return root


def test_curves_are_the_evaluations_in_order_each_once(root: Path) -> None:
    (path,) = (root / "table1" / "deit_small" / "s2vite-40" / "local").iterdir()
    assert accuracy_curve(path) == ([1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    assert accuracy_curve(root) == ([], [])


def test_every_figure_is_drawn_from_what_it_needs(table: Table, root: Path, tmp_path: Path) -> None:
    rows = table.select(["deit_small/s2vite-40", "deit_small/svite_plus-10-50"])
    frame, every = gather(table, rows, "local", [0], root)
    drawn = {one.name: one.draw() for one in drawings(frame, table, every)}
    counts = {name: len(figure.axes) if figure else 0 for name, figure in drawn.items()}
    assert counts == {"sparsity": 1, "cost": 0, "curves": 1, "layers": 0, "heads": 1, "tokens": 8, "interpretation": 0}
    tokens = drawn["tokens"]
    assert tokens is not None
    assert [axes.get_title() for axes in tokens.axes] == ["image", "kept", "image", "kept", "", "", "", ""]
    assert [len(axes.patches) for axes in tokens.axes] == [0, 1, 0, 1, 0, 0, 0, 0]
    corner = tokens.axes[1].patches[0].get_corners()[0]  # type: ignore[attr-defined]
    assert tuple(corner) == (5.5, 5.5)  # patch 15 of 16 on an 8x8 image
    # The row drops 10 %; of sixteen patches one went.
    assert tokens.axes[0].get_ylabel() == "DeiT-Small\nSViTE+ 10, 50 %\n6.25 % dropped"
    names = {path.name for path in more_figures(frame, table, every, tmp_path)}
    assert names == {f"table1_{n}.{e}" for n in counts if counts[n] for e in ("svg", "png", "pdf")}


def test_every_stage_stands_beside_the_image(tmp_path: Path) -> None:
    """Three stages: two images of a strip of eight. What an older version extracted is extracted again."""
    table = load_table("table3")
    (row,) = table.select(["deit_small/ia_red2"])
    record = write_record(tmp_path, row, "local", 0)
    kept = [[[True] * count + [False] * (16 - count)] * 3 for count in (12, 8, 0)]
    found = {"heads": [], "images": np.zeros((3, 8, 8)).tolist(), "kept": kept, "patch_size": 2}
    for schema, is_drawn in ((ANATOMY_SCHEMA - 1, False), (ANATOMY_SCHEMA, True)):
        write_json(record.path / "anatomy.json", {"schema": schema, **found})
        _, every = gather(table, [row], "local", [0], tmp_path)
        figure = draw_tokens(table, every)
        assert (figure is not None) is is_drawn
        assert ("patches kept" in awaited(table, every, "local")) is not is_drawn
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["image", "stage 1", "stage 2", "stage 3"] * 2
    assert [len(axes.patches) for axes in figure.axes] == [0, 4, 8, 16] * 2
    assert figure.axes[0].get_ylabel().endswith("\n25, 50, 100 % dropped")


def test_without_data_there_is_no_figure(table: Table, tmp_path: Path) -> None:
    frame, every = gather(table, table.rows, "local", [0], tmp_path)
    assert more_figures(frame, table, every, tmp_path) == []


def test_error_bars_are_the_spread_over_seeds(frames: dict[str, pd.DataFrame], table: Table) -> None:
    for scale in ("local", "paper"):
        figure = drawings(frames[scale], table, [])[0].draw()
        assert figure is not None
        assert [axes.get_title() for axes in figure.axes] == ["DeiT-Tiny", "DeiT-Small"]
        assert figure.axes[0].get_ylabel().startswith("ImageNet") is (scale == "paper")
        bars = [c for axes in figure.axes for c in axes.containers if c.has_yerr]  # type: ignore[attr-defined]
        assert len(bars) == 5


def test_what_is_saved_against_the_paired_gain(frames: dict[str, pd.DataFrame], table: Table) -> None:
    frame = frames["paper"]
    figure = drawings(frame, table, [])[1].draw()
    assert figure is not None
    params, flops, time = figure.axes
    lines = frame.set_index("row")
    row = "deit_small/svite_plus-5-50"
    drawn = {
        (round(float(x), 6), round(float(y), 6))
        for container in flops.containers
        for x, y in container.lines[0].get_xydata()  # type: ignore[attr-defined]
    }
    assert (round(lines["flops_saving_pct"][row], 6), round(lines["gain_pct"][row], 6)) in drawn
    saved = [float(x) for container in params.containers for x in container.lines[0].get_xdata()]  # type: ignore[attr-defined]
    assert any(
        abs(x - 100 * (1 - lines["params_m"][row] / lines["params_m"]["deit_small/dense"])) < 1e-9 for x in saved
    )
    assert [text.get_text() for text in time.texts] == ["nothing measured"]  # no row has been timed
    assert "ImageNet" not in params.get_ylabel()

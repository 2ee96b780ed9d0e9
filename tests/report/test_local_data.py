"""Accuracies that are not the published training's say so, in the same words, wherever they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from report_records import write_record

from repro.paper_tables import load_table
from repro.report import escaping
from repro.report.card import card_of
from repro.report.collect import gather
from repro.report.figures import draw_table_figure
from repro.report.local_data import accuracy_axis, local_title
from repro.report.more_figures import draw_sparsity, drawings
from repro.report.page import run_lines, section_html
from repro.report.tables import html_text, latex_text, markdown_text
from repro.report.view import view
from repro.rows import Table

OVERRIDDEN = "not the published training (overrides)"


@pytest.mark.parametrize(
    ("scale", "overrides", "title", "axis"),
    [
        ("local", [], "local top-1 (digits, not ImageNet)", "local scale: digits top-1 (%),\nnot ImageNet"),
        (
            "paper",
            ["recipe.weight_decay=0.1"],
            f"top-1 (ImageNet, {OVERRIDDEN})",
            f"paper scale: ImageNet top-1 (%),\n{OVERRIDDEN}",
        ),
        (
            "paper",
            ["data=imagefolder", "data.root=photos"],
            "top-1 (imagefolder, not ImageNet)",
            "paper scale: imagefolder top-1 (%),\nnot ImageNet",
        ),
        ("paper", [], "", "ImageNet top-1 (%)"),
    ],
)
def test_one_wording_everywhere(
    table: Table, tmp_path: Path, scale: str, overrides: Sequence[str], title: str, axis: str
) -> None:
    rows = table.select(["deit_small/dense", "deit_small/svite-50"])
    for row in rows:
        write_record(tmp_path, row, scale, 0, overrides=overrides)
    frame, every = gather(table, rows, scale, [0], tmp_path, overrides)
    assert local_title(frame, table) == title
    assert accuracy_axis(frame, table) == axis
    seen = view(frame, table, overrides)
    assert [column.head for column in seen.columns if "top-1" in column.head] == ([title] if title else [])
    over_seeds = f"Accuracy over seeds: {title}" if title else "Accuracy over seeds"
    assert over_seeds in [note.title for note in seen.notes]
    assert escaping.markdown(over_seeds) in markdown_text(seen)
    assert escaping.latex(over_seeds) in latex_text(seen)
    assert over_seeds in html_text(seen)
    figure = draw_table_figure(frame, table)
    assert figure.axes[-1].get_ylabel() == axis
    sparsity = draw_sparsity(frame, table)
    assert sparsity is not None
    assert sparsity.axes[0].get_ylabel() == axis
    cost = next(one.draw() for one in drawings(frame, table, every) if one.name == "cost")
    assert cost is not None
    first, *others = cost.axes[0].get_ylabel().split("\n")
    assert first == ("gain over dense (points)," if title else "top-1 gain over dense (points)")
    assert " ".join(others) == title
    filled = card_of(table, every, scale, [0], overrides)
    before, after = section_html(frame, table, run_lines(frame, every, tmp_path), filled, overrides)
    assert f"best {title or 'top-1'} in %, each point a run" in before + after
    assert "GMACs per image of the published backbone" in before + after


def test_what_it_is_not_is_within_the_picture(tmp_path: Path) -> None:
    """Two data sets make the longest label: `... (shapes, moving shapes, not ImageNet or Kinetics-400)`."""
    table = load_table("table3")
    rows = table.select(["deit_small/dense", "deit_small/ia_red2", "timesformer/*"])
    for row in rows:
        write_record(tmp_path, row, "local", 0)
    frame, every = gather(table, rows, "local", [0], tmp_path)
    figures = {one.name: one.draw() for one in drawings(frame, table, every)}
    assert figures["sparsity"] is None, "no weight is sparse: every point would stand at 0"
    cost = figures["cost"]
    assert cost is not None
    label = cost.axes[0].yaxis.label
    assert label.get_text().endswith("Kinetics-400)")
    cost.draw_without_rendering()
    where, whole = label.get_window_extent(), cost.bbox
    assert whole.y0 <= where.y0
    assert where.y1 <= whole.y1


def test_a_link_to_a_record_is_an_address(table: Table, tmp_path: Path) -> None:
    root = tmp_path / "runs #1 of 50 %"
    (row,) = table.select(["deit_small/dense"])
    write_record(root, row, "local", 0)
    frame, every = gather(table, [row], "local", [0], root)
    (line,) = run_lines(frame, every, tmp_path / "reports")
    assert line["href"].startswith("../runs%20%231%20of%2050%20%25/table1/")
    assert (tmp_path / "reports" / unquote(line["href"])).resolve().is_dir()

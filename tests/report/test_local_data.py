"""Accuracies that are not the published training's say so, in the same words, wherever they are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from report_records import write_record

from repro.paper_tables import load_table
from repro.report import escaping
from repro.report.card import card_of
from repro.report.collect import gather
from repro.report.figures import draw_table_figure
from repro.report.histories import read_histories
from repro.report.interpretation_figure import draw_interpretation
from repro.report.layer_figure import draw_layers
from repro.report.local_data import accuracy_axis, local_title, trained_at
from repro.report.mask_figure import draw_mask_figure
from repro.report.more_figures import draw_heads, draw_sparsity, draw_tokens, drawings
from repro.report.page import run_lines, section_html
from repro.report.tables import html_text, latex_text, markdown_text
from repro.report.view import view
from repro.rows import Table
from repro.runs.contents import ANATOMY_SCHEMA
from repro.runs.files import write_json
from repro.runs.record import Record

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
        (
            "local",
            ["data=imagenet", "data.root=photos"],
            "local top-1 (ImageNet, not the published training)",
            "local scale: ImageNet top-1 (%),\nnot the published training",
        ),
        ("paper", [], "", "ImageNet top-1 (%)"),
    ],
)
def test_one_wording_everywhere(
    table: Table, tmp_path: Path, scale: str, overrides: Sequence[str], title: str, axis: str
) -> None:
    rows = table.select(["deit_small/dense", "deit_small/svite-50"])
    for row in rows:
        write_curve(write_record(tmp_path, row, scale, 0, overrides=overrides))
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
    figures = {one.name: one.draw() for one in drawings(frame, table, every)}
    cost, curves = figures["cost"], figures["curves"]
    assert curves is not None
    assert curves.get_supylabel().split() == axis.split()
    curves.draw_without_rendering()
    for label in (curves._supxlabel, curves._supylabel):  # type: ignore[attr-defined]  # no other way to their places
        (left, bottom), (right, top) = label.get_window_extent().get_points()
        assert 0 <= left < right <= curves.bbox.x1
        assert 0 <= bottom < top <= curves.bbox.y1
    assert cost is not None
    first, *others = cost.axes[0].get_ylabel().split("\n")
    assert first == ("gain over dense (points)," if title else "top-1 gain over dense (points)")
    assert " ".join(others) == title
    filled = card_of(table, every, scale, [0], overrides)
    before, after = section_html(frame, table, run_lines(frame, every, tmp_path), filled, overrides)
    assert f"best {title or 'top-1'} in %, each point a run" in before + after
    assert "GMACs per image of the published backbone" in before + after


def write_curve(record: Record) -> None:
    lines = [{"kind": "eval", "update": e, "epoch": e, "top1_pct": 40.0 + e} for e in (1, 2)]
    lines += [{"kind": "masks", "update": e, "epoch": e, "churn": 0.1, "density/head": 0.5} for e in (0, 1)]
    record.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("scale", "overrides", "words"),
    [
        ("local", [], "local scale"),
        ("local", ["data=imagenet", "data.root=photos"], "local scale (overrides)"),
        ("paper", ["data.root=photos"], "paper scale"),
        ("paper", ["recipe.weight_decay=0.1"], "paper scale (overrides)"),
    ],
)
def test_a_model_is_named_with_its_scale(
    table: Table, tmp_path: Path, scale: str, overrides: Sequence[str], words: str
) -> None:
    """DeiT-Small has twelve layers at one scale only: a picture of four says which it is of."""
    rows = table.select(["deit_small/svite-50", "deit_small/svite_plus-10-50"])
    for row in rows:
        record = write_record(tmp_path, row, scale, 0, overrides=overrides)
        write_curve(record)
        seen = {"images": np.zeros((1, 8, 8)).tolist(), "kept": [[[True] * 15 + [False]]], "patch_size": 2}
        write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": [[True, False]] * 4, **seen})
        interpreted(record)
    frame, every = gather(table, rows, scale, [0], tmp_path, overrides)
    assert trained_at(every) == words
    histories = list(read_histories(every))
    for figure in (
        draw_heads(table, every),
        draw_tokens(table, every),
        draw_layers(table, histories, trained_at(every)),
        draw_mask_figure(table, histories, trained_at(every)),
        draw_interpretation(table, every),
        *(one.draw() for one in drawings(frame, table, every) if one.name == "layers"),
    ):
        assert figure is not None
        assert f", {words}" in figure.get_suptitle()
        assert f"{words} (" not in figure.get_suptitle()
    lines = run_lines(frame, every, tmp_path)
    data = "imagenet" if "data=imagenet" in overrides or scale == "paper" else "digits"
    assert [line["data"] for line in lines] == [f"{data}, {words}"] * 2
    assert f"79.50 % ({data}, {words})" in "".join(section_html(frame, table, lines, None, overrides))


def interpreted(record: Record) -> None:
    write_json(
        record.path / "interpretation.json",
        {
            **{"schema": 1, "data": "shapes", "images": 1, "images_with_mask": 0},
            **{"stages": [{"kept_pct": 50.0}], "maps": {}},
        },
    )
    kept = np.array([[[True, True, False, False]]])
    np.savez(record.path / "interpretation.npz", images=np.zeros((1, 8, 8, 3), np.uint8), kept=kept)


def test_published_accuracies_are_of_their_own_rows_data(tmp_path: Path) -> None:
    """A frame of videos says so; one of both names both."""
    table = load_table("table3")
    for patterns, axis in (
        (["deit_small/dense"], "ImageNet top-1 (%)"),
        (["timesformer/*"], "Kinetics-400 top-1 (%)"),
        (["deit_small/dense", "timesformer/*"], "ImageNet, Kinetics-400 top-1 (%)"),
    ):
        frame, _ = gather(table, table.select(patterns), "paper", [0], tmp_path)
        assert accuracy_axis(frame, table) == axis
        assert draw_table_figure(frame, table).axes[0].get_ylabel() == axis


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

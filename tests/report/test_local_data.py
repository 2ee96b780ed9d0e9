"""Accuracies that are not from the published training are labelled as such, with the same wording in every output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from report_records import view_of_results, write_record

from repro.files import write_json
from repro.report import escaping
from repro.report.card import card_of
from repro.report.collect import collect_results
from repro.report.figures.drawings import drawings
from repro.report.figures.files import drawn
from repro.report.figures.style import PAGE_IN
from repro.report.local_data import accuracy_axis, local_label, trained_at
from repro.report.page import run_lines, section_html
from repro.report.tables import html_text, latex_text, markdown_text
from repro.runs.record import Record
from repro.runs.schemas import ANATOMY_SCHEMA
from repro.tables.loader import load_table
from repro.tables.rows import Table

OVERRIDDEN = "not the published training (overrides)"


@pytest.mark.parametrize(
    ("scale", "overrides", "title", "axis"),
    [
        ("local", [], "local top-1 (digits, not ImageNet)", "digits top-1, best epoch (%)\nlocal scale, not ImageNet"),
        (
            "paper",
            ["recipe.weight_decay=0.1"],
            f"top-1 (ImageNet, {OVERRIDDEN})",
            f"ImageNet top-1, best epoch (%)\npaper scale, {OVERRIDDEN}",
        ),
        (
            "paper",
            ["data=imagefolder", "data.root=photos"],
            "top-1 (imagefolder, not ImageNet)",
            "imagefolder top-1, best epoch (%)\npaper scale, not ImageNet",
        ),
        (
            "local",
            ["data=imagenet", "data.root=photos"],
            "local top-1 (ImageNet, not the published training)",
            "ImageNet top-1, best epoch (%)\nlocal scale, not the published training",
        ),
        ("paper", [], "", "ImageNet top-1, best epoch (%)"),
    ],
)
def test_one_wording_everywhere(
    table: Table, tmp_path: Path, scale: str, overrides: Sequence[str], title: str, axis: str
) -> None:
    rows = table.select(["deit_small/dense", "deit_small/svite-50"])
    for row in rows:
        write_curve(write_record(tmp_path, row, scale, 0, overrides=overrides))
    results = collect_results(table, rows, scale, [0], tmp_path, overrides)
    assert local_label(results, "top-1") == title
    assert accuracy_axis(results) == axis
    seen = view_of_results(results)
    (grid,) = seen.compact
    head = title.replace("top-1", "top-1, best epoch")
    assert [column.head for column in grid.columns if "top-1" in column.head] == ([head] if title else [])
    over_seeds = f"Accuracy over seeds: {title}" if title else "Accuracy over seeds"
    assert over_seeds in [note.title for note in seen.notes]
    assert escaping.markdown(over_seeds) in markdown_text(seen)
    assert escaping.latex(over_seeds) in latex_text(seen)
    assert over_seeds in html_text(seen)
    figures = {one.name: drawn(one.draw, PAGE_IN) for one in drawings(results)}
    names = ("table1_local" if title else "figure1", "table1_sparsity", "table1_curves_deit_small", "table1_cost")
    for name, measured in zip(names, (axis, axis, axis.replace("best", "each"), axis), strict=True):
        figure = figures[name]
        assert figure is not None
        label = " ".join(figure.get_supylabel().split())
        if name == "table1_cost":
            assert label.startswith("gain over dense, best epoch (points)")
            continue
        assert label == " ".join(measured.split())
    filled = card_of(seen.results)
    html = section_html(seen, run_lines(seen.results, tmp_path), filled)
    assert f"{head or 'top-1, best epoch'} in %, each point a run" in html
    assert "GMACs per image of the published backbone" in html


def write_curve(record: Record) -> None:
    lines = [{"kind": "eval", "update": e, "epoch": e, "top1_pct": 40.0 + e} for e in (1, 2)]
    lines += [
        {"kind": "masks", "update": e, "epoch": e, "churn": 0.1, "density": 0.5, "density/head": 0.5} for e in (0, 1)
    ]
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
    """DeiT-Small has twelve layers at only one scale, so a figure with four layers names its scale."""
    rows = table.select(["deit_small/svite-50", "deit_small/svite_plus-10-50"])
    for row in rows:
        record = write_record(tmp_path, row, scale, 0, overrides=overrides)
        write_curve(record)
        seen = {"images": np.zeros((1, 8, 8)).tolist(), "kept": [[[True] * 15 + [False]]], "patch_size": 2}
        write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": [[True, False]] * 4, **seen})
        interpreted(record)
    results = collect_results(table, rows, scale, [0], tmp_path, overrides)
    assert trained_at(results.evidence) == words
    figures = {one.name.removeprefix("table1_"): drawn(one.draw, PAGE_IN) for one in drawings(results)}
    for name in ("heads", "tokens", "layers", "churn", "final_density", "interpretation"):
        figure = figures[name]
        assert figure is not None
        head = " ".join(figure.get_suptitle().split())
        assert f", {words}" in head
        assert f"{words} (" not in head
    seen = view_of_results(collect_results(table, rows, scale, [0], tmp_path, overrides))
    lines = run_lines(seen.results, tmp_path)
    data = "imagenet" if "data=imagenet" in overrides or scale == "paper" else "digits"
    assert [line["data"] for line in lines] == [f"{data}, {words}"] * 2
    assert f"best 79.50 % ({data}, {words})" in section_html(seen, lines, None)


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
    """The axis names the data set of videos, or both if there are rows of both."""
    table = load_table("table3")
    for patterns, axis in (
        (["deit_small/dense"], "ImageNet top-1, best epoch (%)"),
        (["timesformer/*"], "Kinetics-400 top-1, best epoch (%)"),
        (["deit_small/dense", "timesformer/*"], "ImageNet, Kinetics-400 top-1, best epoch (%)"),
    ):
        assert accuracy_axis(collect_results(table, table.select(patterns), "paper", [0], tmp_path)) == axis


def test_a_link_to_a_record_is_an_address(table: Table, tmp_path: Path) -> None:
    root = tmp_path / "runs #1 of 50 %"
    (row,) = table.select(["deit_small/dense"])
    write_record(root, row, "local", 0)
    (line,) = run_lines(collect_results(table, [row], "local", [0], root), tmp_path / "reports")
    assert line["href"].startswith("../runs%20%231%20of%2050%20%25/table1/")
    assert (tmp_path / "reports" / unquote(line["href"])).resolve().is_dir()

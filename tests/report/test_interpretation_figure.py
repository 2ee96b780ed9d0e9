"""The figure of where a model looks: drawn only from what `repro interpret` writes into records."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from random_input import answer, damaged, random_input
from report_records import write_record

from repro.files import write_json
from repro.report.collect import collect_results
from repro.report.figures.files import drawn
from repro.report.figures.interpretation import draw_interpretation, stored_pictures
from repro.report.figures.style import COLUMN_IN, PAGE_IN
from repro.runs.record import Record
from repro.tables.loader import load_table

TABLE = load_table("table3")


def write(record: Record, stages: int, with_masks: bool) -> None:
    share = {"kept_pct": 50.0, **({"object_kept_pct": 90.0, "background_kept_pct": 10.0} if with_masks else {})}
    values = {"pixel_accuracy_pct": 80.0, "mean_accuracy_pct": 75.0, "mean_iou_pct": 61.25}
    maps = {"rollout": values} if with_masks else {}
    measured = {"schema": 1, "data": "shapes", "images": 7, "images_with_mask": 7 * with_masks}
    arrays: dict[str, Any] = {
        "images": np.full((5, 8, 8, 3), 200, np.uint8),
        "kept": np.arange(4)[None, None].repeat(5, 0).repeat(stages, 1) < 2,
        "map_rollout": np.random.default_rng(0).random((5, 8, 8)).astype(np.float16),
    }
    if with_masks:
        arrays["masks"] = np.zeros((5, 8, 8), bool)
        arrays["masks"][:, 2:5, 2:5] = True
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    (record.path / "interpretation.npz").write_bytes(buffer.getvalue())
    write_json(record.path / "interpretation.json", {**measured, "maps": maps, "stages": [share] * stages})


def test_the_row_with_most_stages_is_drawn(tmp_path: Path) -> None:
    rows = TABLE.select(["deit_small/dense deit_small/ia_red2 deit_small/ia_red2-d1"])
    none = collect_results(TABLE, rows, "local", [0], tmp_path).evidence
    assert draw_interpretation(TABLE, none, PAGE_IN) is None
    for row, stages in zip(rows, (0, 3, 1), strict=True):
        write(write_record(tmp_path, row, "local", 0, overrides=row.overrides_at("local")), stages, with_masks=True)
    every = collect_results(TABLE, rows, "local", [0], tmp_path).evidence
    figure = drawn(lambda width_in: draw_interpretation(TABLE, every, width_in), PAGE_IN)
    assert figure is not None
    heads = [axes.get_title() for axes in figure.axes[:5]]
    assert heads == [
        "image",
        *(f"stage {stage}\nobject 90 %\nrest 10 %" for stage in (1, 2, 3)),
        "attention\nrollout\nmIoU 61.2 %",
    ]
    assert figure.get_suptitle() == "DeiT-Small, IA-RED2, local scale: shapes, 7 images"
    # In column width, each image is a column, with a row of panels for each stage and heat map.
    column = drawn(lambda width_in: draw_interpretation(TABLE, every, width_in), COLUMN_IN)
    assert column is not None
    assert [axes.get_ylabel() for axes in column.axes if axes.get_ylabel()] == heads
    # Dropped patches are dark, kept patches unchanged: of four patches, the upper two are kept.
    shown = figure.axes[1].images[0].get_array()
    assert shown is not None
    assert set(np.unique(shown[:4])) == {200}
    assert set(np.unique(shown[4:])) == {44}


def test_without_masks_shares_are_of_all_patches(tmp_path: Path) -> None:
    (row,) = TABLE.select(["deit_small/ia_red2"])
    write(write_record(tmp_path, row, "local", 0, overrides=row.overrides_at("local")), 1, with_masks=False)
    every = collect_results(TABLE, [row], "local", [0], tmp_path).evidence
    figure = draw_interpretation(TABLE, every, PAGE_IN)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "stage 1\nkept 50 %", "attention\nrollout"]


def test_damaged_images_are_read_or_named(tmp_path: Path) -> None:
    (row,) = TABLE.select(["deit_small/ia_red2"])
    record = write_record(tmp_path, row, "local", 0)
    write(record, 1, with_masks=True)
    file = record.path / "interpretation.npz"

    @given(damaged(file.read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        file.write_bytes(content)
        answer(lambda: stored_pictures(file))

    check()

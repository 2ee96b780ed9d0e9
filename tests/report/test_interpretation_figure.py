"""The figure of where a model looks: from what `repro interpret` leaves in records, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from report_records import write_record

from repro.paper_tables import load_table
from repro.report.evidence import read_table
from repro.report.interpretation_figure import draw_interpretation, what_is_shown
from repro.runs.files import write_json
from repro.runs.record import Record

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
    assert draw_interpretation(TABLE, read_table(TABLE, rows, "local", [0], tmp_path)) is None
    for row, stages in zip(rows, (0, 3, 1), strict=True):
        write(write_record(tmp_path, row, "local", 0, overrides=row.overrides_at("local")), stages, with_masks=True)
    every = read_table(TABLE, rows, "local", [0], tmp_path)
    figure = draw_interpretation(TABLE, every)
    assert figure is not None
    heads = [axes.get_title() for axes in figure.axes[:5]]
    assert heads == [
        "image",
        *(f"after stage {stage}\n90 % of object,\n10 % of rest" for stage in (1, 2, 3)),
        "attention rollout\nmIoU 61.2 %",
    ]
    assert figure.get_suptitle() == "DeiT-Small, local scale, IA-RED2: shapes, 7 images"
    # What is gone is dark, what stays is as it was: of four patches the upper two stay.
    shown = figure.axes[1].images[0].get_array()
    assert shown is not None
    assert set(np.unique(shown[:4])) == {200}
    assert set(np.unique(shown[4:])) == {44}


def test_without_masks_shares_are_of_all_patches(tmp_path: Path) -> None:
    (row,) = TABLE.select(["deit_small/ia_red2"])
    write(write_record(tmp_path, row, "local", 0, overrides=row.overrides_at("local")), 1, with_masks=False)
    every = read_table(TABLE, [row], "local", [0], tmp_path)
    figure = draw_interpretation(TABLE, every)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "after stage 1\n50 % kept", "attention rollout"]
    assert "deit_small/ia_red2" in what_is_shown(every)

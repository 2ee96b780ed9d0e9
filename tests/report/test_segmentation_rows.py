"""Rows that read the heat maps of another row's runs: what they show, for which images, and what they must not show."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from report_records import claim_of, view_of_results, write_record
from rich.console import Console

from repro.errors import UserError
from repro.evaluation.interpretation.segmentation import metrics
from repro.files import write_json
from repro.launch.plan import plan
from repro.report.build import build
from repro.report.cells import Results
from repro.report.claim_verdicts import JudgedClaim, judge_claims
from repro.report.collect import collect_results
from repro.report.frame import frame_of
from repro.report.segmentation import SEGMENTATION
from repro.report.tables import markdown_text
from repro.report.terminal import print_view
from repro.runs.record import Record
from repro.tables.loader import load_table, with_source_row
from repro.tables.rows import PublishedValue, Table

TABLE = load_table("table3")
(LEARNED,) = TABLE.select(["deit_small/ia_red2"])
SCORES, ATTENTION = "deit_small/ia_red2-segmentation", "deit_small/ia_red2-segmentation-attention"
LABELS = ("Pixel accuracy (%)", "Mean accuracy (%)", "Mean IoU (%)")


def interpreted(record: Record, data: str, first: float, **changes: Any) -> None:
    """Write an interpretation with metrics `first`, + 1 and + 2 for token scores, and 10 less for class attention."""
    maps = {
        name: dict(zip(SEGMENTATION, (value, value + 1, value + 2), strict=True))
        for name, value in (("token_scores", first), ("class_attention", first - 10), ("rollout", first - 20))
    }
    about = {"schema": 1, "data": data, "is_whole": True, "is_the_data_set": True}
    about |= {"images": 100, "images_with_mask": 100, "stages": []}
    write_json(record.path / "interpretation.json", {**about, "maps": maps, **changes})


def results_at(root: Path, scale: str, seeds: int, table: Table = TABLE) -> Results:
    rows = table.select(["deit_small/dense deit_small/ia_red2", "deit_small/*segmentation*"])
    return collect_results(table, rows, scale, range(seeds), root)


def frame_at(root: Path, scale: str, seeds: int, table: Table = TABLE) -> pd.DataFrame:
    return frame_of(results_at(root, scale, seeds, table)).set_index("row", drop=False)


def printed(results: Results, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_view(view_of_results(results), console)
    return console.export_text()


def with_published(value: float) -> Table:
    """Return table 3 with a made-up published mean IoU for the row."""
    found = (PublishedValue("mean_iou_pct", value, 0.0, "cited", "evo_vit"),)
    return replace(TABLE, rows=tuple(replace(r, published=found) if r.id == SCORES else r for r in TABLE.rows))


def test_the_published_row_is_a_row_of_the_table_and_trains_nothing(tmp_path: Path) -> None:
    assert SCORES in {row.id for row in TABLE.rows}
    (row,) = TABLE.select([SCORES])
    assert TABLE.source_row(row) is LEARNED
    alone = plan(TABLE, [row], "local", [0], tmp_path)
    both = plan(TABLE, [LEARNED, row], "local", [0], tmp_path)
    assert [run.row.id for run in alone] == [run.row.id for run in both] == ["deit_small/dense", "deit_small/ia_red2"]
    assert [run.record.path for run in alone] == [run.record.path for run in both]


def test_metrics_are_those_that_interpretations_have() -> None:
    counts = metrics(torch.ones(2, 2))
    assert tuple(counts) == SEGMENTATION


def test_local_values_never_stand_where_the_published_images_do(tmp_path: Path) -> None:
    interpreted(write_record(tmp_path, LEARNED, "local", 0), "shapes", 70.0)
    frame = frame_at(tmp_path, "local", 1)
    scores, attention = frame.loc[SCORES], frame.loc[ATTENTION]
    assert [scores[f"local_{name}"] for name in SEGMENTATION] == [70, 71, 72]
    assert [attention[f"local_{name}"] for name in SEGMENTATION] == [60, 61, 62]
    assert frame[[*SEGMENTATION]].isna().all(axis=None)
    assert frame.loc[[LEARNED.id, "deit_small/dense"], [f"local_{name}" for name in SEGMENTATION]].isna().all(axis=None)
    assert (scores["run_of"], scores["heat_map"], scores["heat_map_data"]) == (LEARNED.id, "token_scores", "shapes")
    assert scores[["params_m", "macs_g", "local_top1_best_pct", "top1_best_pct"]].isna().all()
    assert set(frame["mean_iou_pct_verdict"]) == {"no published value"}
    assert frame_at(tmp_path, "local", 1, with_published(72.0)).loc[SCORES, "mean_iou_pct_verdict"] == "other scale"
    text = markdown_text(view_of_results(results_at(tmp_path, "local", 1)))
    heads = next(line for line in text.splitlines() if line.startswith("| Heat map |"))
    for label in LABELS:
        assert f"| {label} local (shapes, not ImageNet-Segmentation) |" in heads
    (note,) = [line for line in text.splitlines() if line.startswith(f"- {SCORES}: token_scores")]
    assert "Pixel accuracy (%) 70.00; Mean accuracy (%) 71.00; Mean IoU (%) 72.00" in note
    assert (
        "shapes, 100 images with a mask, n = 1; not run on ImageNet-Segmentation at this scale; no published value"
        in note
    )
    (dense,) = [
        line for line in text.splitlines() if line.startswith("- deit_small/dense-segmentation-rollout: rollout")
    ]
    assert dense.endswith("not run on ImageNet-Segmentation at this scale; no run is finished; no published value")


def test_of_the_published_images_another_training_is_named_as_that(tmp_path: Path) -> None:
    interpreted(write_record(tmp_path, LEARNED, "local", 0), "imagenet_segmentation", 70.0)
    frame = frame_at(tmp_path, "local", 1, with_published(72.0))
    assert frame.loc[SCORES, "mean_iou_pct_verdict"] == "other scale"
    text = markdown_text(view_of_results(results_at(tmp_path, "local", 1)))
    assert "Mean IoU (%) local (ImageNet-Segmentation, not the published training) |" in text
    (note,) = [line for line in text.splitlines() if line.startswith(f"- {SCORES}: token_scores")]
    assert "ImageNet-Segmentation, 100 images with a mask, n = 1; not the published training; " in note
    assert "not run on" not in note


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_a_terminal_never_heads_other_images_with_the_published_ones_name(tmp_path: Path, scale: str) -> None:
    interpreted(write_record(tmp_path, LEARNED, scale, 0), "imagenet_segmentation", 60.0, is_whole=False)
    results = results_at(tmp_path, scale, 1)
    words = " ".join(printed(results).split())
    assert words.count("not all of") >= len(SEGMENTATION)
    assert "not run on all of ImageNet-Segmentation at this scale" in markdown_text(view_of_results(results))


def test_over_seeds_on_the_published_images_there_is_a_verdict(tmp_path: Path) -> None:
    for seed, value in enumerate((59.0, 60.0, 61.0)):
        record = write_record(tmp_path, LEARNED, "paper", seed)
        interpreted(record, "imagenet_segmentation", value)
        for seeds in range(1, seed + 2):
            verdict = frame_at(tmp_path, "paper", seeds, with_published(62.5)).loc[SCORES, "mean_iou_pct_verdict"]
            assert verdict == ("reproduced" if seeds == 3 else f"partial ({seeds} of 3)")
    found = frame_at(tmp_path, "paper", 3, with_published(62.5)).loc[SCORES]
    assert (found["mean_iou_pct"], found["mean_iou_pct_std"], found["mean_iou_pct_delta"]) == (62.0, 1.0, -0.5)
    assert found["mean_iou_pct_by_seed"] == "0=61 1=62 2=63"
    assert math.isnan(found["local_mean_iou_pct"])
    # 1.96 * 1 / sqrt(3) = 1.13 exceeds the table's tolerance of one point.
    for published, verdict in ((63.1, "reproduced"), (63.2, "below"), (60.8, "above")):
        found = frame_at(tmp_path, "paper", 3, with_published(published)).loc[SCORES]
        assert found["mean_iou_pct_verdict"] == verdict
    results = results_at(tmp_path, "paper", 3)
    name = SCORES.partition("/")[2]
    (line,) = [line for line in printed(results).splitlines() if line.startswith(f" {name} ")]
    assert line.split()[1:10] == [*("60.00", "±", "1.00"), *("61.00", "±", "1.00"), *("62.00", "±", "1.00")]
    (note,) = [note for note in view_of_results(results).notes if note.title.startswith("Heat maps")]
    assert "ImageNet-Segmentation, 100 images with a mask, n = 3" in note.items[0]


@pytest.mark.parametrize(
    ("changes", "verdict", "missing"),
    [
        ({"is_whole": False}, "other scale", ""),
        ({"is_the_data_set": False}, "other scale", ""),
        ({"data": "imagenet", "images_with_mask": 0, "maps": {}}, "not measured", "imagenet has no masks"),
        (None, "not measured", "no finished run has been interpreted"),
    ],
)
def test_what_is_not_all_of_the_published_images_decides_nothing(
    tmp_path: Path, changes: dict[str, Any] | None, verdict: str, missing: str
) -> None:
    record = write_record(tmp_path, LEARNED, "paper", 0)
    if changes is not None:
        interpreted(record, **{"data": "imagenet_segmentation", "first": 60.0, **changes})
    found = frame_at(tmp_path, "paper", 1, with_published(62.0)).loc[SCORES]
    assert (found["mean_iou_pct_verdict"], found["heat_map_missing"]) == (verdict, missing)
    assert math.isnan(found["mean_iou_pct"])


def test_a_record_that_does_not_say_whether_it_saw_all_may_have_seen_a_part(tmp_path: Path) -> None:
    record = write_record(tmp_path, LEARNED, "paper", 0)
    interpreted(record, "imagenet_segmentation", 60.0)
    said = json.loads((record.path / "interpretation.json").read_text())
    del said["is_whole"]
    write_json(record.path / "interpretation.json", said)
    frame = frame_at(tmp_path, "paper", 1)
    assert math.isnan(frame.loc[SCORES, "mean_iou_pct"])
    assert frame.loc[SCORES, "local_mean_iou_pct"] == 62.0
    text = markdown_text(view_of_results(results_at(tmp_path, "paper", 1)))
    assert "Mean IoU (%) paper (ImageNet-Segmentation, not all of ImageNet-Segmentation)" in text


def test_a_claim_waits_for_all_seeds_of_the_published_images(tmp_path: Path) -> None:
    claim = claim_of(f"{{cell: [{SCORES}, mean_iou_pct], more_than: 50}}", "table3")

    def judged(scale: str, root: Path) -> JudgedClaim:
        (found,) = judge_claims(results_at(root, scale, 3), [claim])
        return found

    assert judged("paper", tmp_path).verdict == "not measured"
    interpreted(write_record(tmp_path, LEARNED, "local", 0), "shapes", 60.0)
    assert judged("local", tmp_path).verdict == "not run at this scale"
    for seed in range(3):
        record = write_record(tmp_path, LEARNED, "paper", seed)
        found = judged("paper", tmp_path)
        assert (found.verdict, found.reason) == (
            ("partial", f"{SCORES}: {seed} of 3 seeds")
            if seed
            else ("not measured", f"{SCORES} Mean IoU (%): no finished run has been interpreted")
        )
        interpreted(record, "imagenet_segmentation", 59.0 + seed)
    found = judged("paper", tmp_path)
    assert found.verdict == "holds"
    assert found.evidence[0].startswith(f"measured {SCORES} Mean IoU (%) = 62.00 (95 % interval")


def test_seeds_that_saw_other_images_are_not_mixed(tmp_path: Path) -> None:
    for seed, data in enumerate(("shapes", "imagenet_segmentation", "imagenet_segmentation")):
        interpreted(write_record(tmp_path, LEARNED, "paper", seed), data, 60.0 + seed)
    found = frame_at(tmp_path, "paper", 3).loc[SCORES]
    assert (found["pixel_accuracy_pct"], found["heat_map_seeds"]) == (61.5, 2)
    assert found["heat_map_missing"] == "2 of 3 seeds"


def test_a_run_is_counted_once_and_drawn_once(tmp_path: Path) -> None:
    write_record(tmp_path / "runs", LEARNED, "local", 0)
    rows = TABLE.select(["deit_small/ia_red2", "deit_small/ia_red2-segmentation*"])
    report = build(TABLE, rows, "local", [0], tmp_path / "runs", tmp_path / "reports")
    text = (tmp_path / "reports/table3/local/table3.md").read_text()
    assert "Generated from: 1 run record, 1 of them done" in text
    assert "n = 1; best epoch" in text
    assert text.count("best epoch 79.50") == 1
    section = json.loads((tmp_path / "reports/table3/local/section.json").read_text())
    assert [run["row"] for run in section["runs"]] == [LEARNED.id]
    assert json.loads((tmp_path / "reports/table3/local/card.json").read_text())["runs"] == 1
    assert len(report.view.results.rows) == 4


def test_a_row_without_its_heat_map_is_not_finished(tmp_path: Path) -> None:
    record, rows = write_record(tmp_path, LEARNED, "local", 0), TABLE.select([LEARNED.id, SCORES])

    def rows_and_states(seeds: int) -> tuple[str, list[str]]:
        seen = view_of_results(collect_results(TABLE, rows, "local", range(seeds), tmp_path))
        (states,) = ([one.text for one in c.entries] for c in seen.compact[1].columns if c.head == "Runs")
        return dict(seen.facts)["Rows"].partition(", ")[2], states

    assert rows_and_states(1) == ("1 of them finished in all seeds", ["not measured"])
    text = markdown_text(view_of_results(results_at(tmp_path, "local", 1)))
    assert f"- not measured: no finished run has been interpreted ({SCORES}, " in text
    interpreted(record, "shapes", 70.0)
    write_record(tmp_path, LEARNED, "local", 1)
    assert rows_and_states(2) == ("1 of them finished in all seeds", ["partial (1 of 2)"])
    found = view_of_results(collect_results(TABLE, rows, "local", [0], tmp_path))
    assert "2 of them finished in all seeds" in dict(found.facts)["Rows"]


def test_a_report_of_these_rows_alone_is_written(tmp_path: Path) -> None:
    build(TABLE, TABLE.select([SCORES]), "local", [0], tmp_path / "runs", tmp_path / "reports")
    assert SCORES in (tmp_path / "reports/table3/local/table3.md").read_text()
    write_record(tmp_path / "runs", LEARNED, "local", 0)
    build(TABLE, TABLE.select([SCORES]), "local", [0], tmp_path / "runs", tmp_path / "reports")
    assert "Generated from: 1 run record" in (tmp_path / "reports/table3/local/table3.md").read_text()


def test_a_heat_map_that_the_models_do_not_have_is_one_line(tmp_path: Path) -> None:
    (dense,) = TABLE.select(["deit_small/dense"])
    interpreted(
        write_record(tmp_path, dense, "local", 0), "shapes", 70.0, maps={"rollout": dict.fromkeys(SEGMENTATION, 50.0)}
    )
    with pytest.raises(
        UserError, match=r"dense-segmentation-attention: heat_map=class_attention; its runs have rollout"
    ):
        frame_at(tmp_path, "local", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reads_runs_of": "deit_small/ia_red"}, "which is not a row of this table; nearest: deit_small/ia_red2"),
        ({"reads_runs_of": ATTENTION}, "which has no runs of its own"),
        ({"heat_map": ""}, "come together"),
        ({"method": "dense"}, "have that row's backbone, method and sparsities"),
        ({"own_overrides": ("recipe.epochs=1",)}, "no overrides or scales of its own"),
        ({"published": (PublishedValue("top1_pct", 1.0, 0.0, "cited", "evo_vit"),)}, "a published top1_pct for a row"),
    ],
)
def test_a_row_that_reads_nothing_sensible_is_refused(changes: dict[str, Any], message: str) -> None:
    (row,) = TABLE.select([SCORES])
    every = {one.id: one for one in TABLE.every_row}
    plain = replace(row, own_overrides=(), scales=())
    assert with_source_row(plain, every, TABLE.metrics) == row
    with pytest.raises(UserError, match=message):
        with_source_row(replace(plain, **changes), every, TABLE.metrics)


def test_a_published_map_for_a_row_without_one_is_refused() -> None:
    value = (PublishedValue("mean_iou_pct", 1.0, 0.0, "cited", "evo_vit"),)
    with pytest.raises(UserError, match="reads no heat map"):
        with_source_row(replace(LEARNED, published=value), {}, TABLE.metrics)

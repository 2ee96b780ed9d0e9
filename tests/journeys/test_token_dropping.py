"""Table 3's way, from the command line: dense, IA-RED2, and chance at the budget that IA-RED2 has measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_table_journey import repro

from repro.evaluation.extract import kept_patches
from repro.evaluation.finished_model import finished_weights
from repro.inference.export import load_exported
from repro.runs.record import Record
from repro.training import checkpoint


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("token dropping")
    asked = ("deit_small/random_dropping", "deit_small/ia_red2", "deit_small/linformer")
    asked = (*asked, "deit_small/ia_red2-segmentation*")
    answer = repro(folder, "launch", "table3", *asked, "--scale", "smoke", "tracker=none", "--figures")
    assert answer.returncode == 0, answer.stderr
    return folder


def test_a_launch_leaves_the_segmentation_rows_measured(launched: Path) -> None:
    """What `make table3` does: of the runs that rows read, heat maps are made before the report, and of no others."""
    record, _ = result_of(launched, "ia_red2")
    found = record.interpretation()
    assert found is not None
    assert (found["data"], found["images"], found["is_whole"]) == ("shapes", 128, True)
    assert result_of(launched, "random_dropping")[0].interpretation() is None
    with (launched / "reports" / "table3" / "smoke" / "table3.csv").open(newline="") as stream:
        cells = {line["row"]: line for line in csv.DictReader(stream)}
    for name, heat_map in (("", "token_scores"), ("-attention", "class_attention"), ("-rollout", "rollout")):
        line = cells[f"deit_small/ia_red2-segmentation{name}"]
        for metric, value in found["maps"][heat_map].items():
            assert float(line[f"local_{metric}"]) == pytest.approx(value)
            assert line[metric] == ""
        assert (line["heat_map_data"], line["heat_map_images"], line["run_of"]) == (
            "shapes",
            "128",
            "deit_small/ia_red2",
        )
    assert (launched / "reports" / "table3" / "smoke" / "table3_interpretation.svg").is_file()


def result_of(folder: Path, row: str) -> tuple[Record, dict[str, Any]]:
    (path,) = (folder / "runs" / "table3" / "deit_small" / row / "smoke").iterdir()
    return Record(path), json.loads((path / "result.json").read_text())


def test_random_dropping_has_the_measured_keep_rates_and_the_same_start(launched: Path) -> None:
    learned, measured = result_of(launched, "ia_red2")
    chance, drawn = result_of(launched, "random_dropping")
    for stage in (1, 2, 3):
        wanted = max(1, round(measured[f"keep_rate_{stage}"] * 36)) / 36
        assert drawn[f"keep_rate_{stage}"] == pytest.approx(wanted)
        assert drawn[f"keep_rate_square_{stage}"] == pytest.approx(wanted**2)
    assert chance.starts_from() == learned
    dense = learned.starts_from()
    assert dense is not None
    assert dense.about()["row"] == "deit_small/dense"
    weights = finished_weights(chance, "last")
    saved = [int(weights[f"droppers.{index}.kept"]) for index in range(3)]
    assert saved == [max(1, round(36 * measured[f"keep_rate_{stage}"])) for stage in (1, 2, 3)]
    assert checkpoint.load_latest(learned.checkpoint_dir, torch.device("cpu")) is not None


def test_counts_from_other_data_are_marked_and_have_no_verdict(launched: Path) -> None:
    answer = repro(launched, "report", "table3", "deit_small/*", "--scale", "smoke")
    assert answer.returncode == 0, answer.stderr
    with (launched / "reports" / "table3" / "smoke" / "table3.csv").open(newline="") as stream:
        cells = {line["row"]: line for line in csv.DictReader(stream)}
    learned, dense, linformer = (cells[f"deit_small/{name}"] for name in ("ia_red2", "dense", "linformer"))
    assert dense["macs_g_verdict"] == "reproduced", "an exact count is decided at every scale"
    assert learned["macs_g_verdict"] == "other scale"
    assert (learned["macs_g_published"], learned["macs_g_delta"]) == ("3.2", "")
    assert "other data" in learned["cost_note"]
    _, measured = result_of(launched, "ia_red2")
    assert float(learned["macs_g"]) == pytest.approx(measured["macs_g"])
    assert float(learned["macs_g"]) < float(dense["macs_g"])
    assert (linformer["cost_note"], dense["cost_note"]) == ("", "")
    assert learned["throughput_img_s_verdict"] == "other scale", (
        "what it keeps of other images says nothing of its speed"
    )
    assert (
        "mark e: tokens left are those measured on other data"
        in (launched / "reports/table3/smoke/table3.md").read_text()
    )


def test_an_export_drops_the_same_patches(launched: Path) -> None:
    record, _ = result_of(launched, "ia_red2")
    answer = repro(launched, "export", str(record.path), "--kernels", "dense", "--out", str(launched / "out"))
    assert answer.returncode == 0, answer.stderr
    from repro.inference.build import masked_model

    exported = load_exported(launched / "out")
    trained = masked_model(record.config(), finished_weights(record, "last"))
    images = torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(exported(images), trained(images), rtol=0, atol=1e-5)
        kept = kept_patches(exported, images)
    assert kept is not None
    assert torch.equal(kept, kept_patches(trained, images))  # type: ignore[arg-type]


def test_extract_and_figures_have_the_patches(launched: Path) -> None:
    answer = repro(launched, "extract", "table3", "deit_small/*", "--scale", "smoke")
    assert answer.returncode == 0, answer.stderr
    record, _ = result_of(launched, "ia_red2")
    found = record.anatomy()
    assert found is not None
    stages = record.config().method.tokens.keep_rates  # type: ignore[union-attr]
    assert np.shape(found["kept"]) == (len(stages), 8, 36)
    assert found["patch_size"] == 4
    mixed = result_of(launched, "linformer")[0].anatomy()
    assert mixed is not None
    assert "kept" not in mixed, "it drops none"

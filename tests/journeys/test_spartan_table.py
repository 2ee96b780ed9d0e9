"""Table 2 from the command line: soft top-k over weights, blocks and neurons, and magnitude pruning."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_table_journey import repro

from repro.evaluation.finished_model import finished_weights
from repro.inference.build import masked_model
from repro.inference.export import load_exported
from repro.runs.record import Record

ROWS = (
    "resnet50/dense",
    "resnet50/spartan-95",
    "resnet50/imp-95",
    "vit_base/spartan-90-block16",
    "vit_base/spartan_neuron-50",
)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spartan")
    answer = repro(folder, "launch", "table2", *ROWS, "--scale", "smoke")
    assert answer.returncode == 0, answer.stderr
    return folder


def result_of(folder: Path, row: str) -> tuple[Record, dict[str, Any]]:
    (path,) = (folder / "runs" / "table2" / row / "smoke").iterdir()
    return Record(path), json.loads((path / "result.json").read_text())


@pytest.mark.parametrize(("row", "left"), [("resnet50/spartan-95", 0.05), ("resnet50/imp-95", 0.05)])
def test_the_whole_model_has_the_density_of_its_row(launched: Path, row: str, left: float) -> None:
    record, result = result_of(launched, row)
    weights = finished_weights(record, "last")
    learned = {
        name: weight
        for name, weight in weights.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    nonzero = sum(int(weight.count_nonzero()) for weight in learned.values())
    total = sum(weight.numel() for weight in learned.values())
    # Biases that are zero count as there; a weight more or less is what the target is met within.
    unmasked = sum(weight.numel() for name, weight in learned.items() if weight.dim() == 1)
    zero_biases = sum(weight.numel() - int(weight.count_nonzero()) for weight in learned.values() if weight.dim() == 1)
    assert unmasked < left * total, "or the target could not be met"
    assert nonzero + zero_biases == pytest.approx(left * total, abs=1.5)
    assert result["params_m"] == pytest.approx(left * 25.557032, abs=2e-6), "counted at the published size"


def test_the_report_compares_them_with_the_bounds(launched: Path) -> None:
    with (launched / "reports" / "table2" / "smoke" / "table2.csv").open(newline="") as stream:
        cells = {line["row"]: line for line in csv.DictReader(stream)}
    assert list(cells) == list(ROWS)
    bound = cells["resnet50/spartan-95"]
    assert (bound["top1_drop_pct_max_published"], bound["top1_drop_pct_max_verdict"]) == ("1", "other scale")
    assert all(float(line["local_top1_last_pct"]) >= 0 for line in cells.values())
    assert {line["top1_last_pct"] for line in cells.values()} == {""}
    assert (launched / "reports" / "table2" / "smoke" / "table2_local.svg").stat().st_size > 1000


def test_the_mirror_has_the_sharpness_and_the_density(launched: Path) -> None:
    record, result = result_of(launched, "resnet50/spartan-95")
    (segment,) = (record.path / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(segment)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    history = [json.loads(line).get("history", {}).get("item", {}) for line in answer.stdout.splitlines()]
    lines = [line for line in history if "sparsity/beta" in line]
    assert len(lines) >= 2
    assert lines[-1]["sparsity/beta"] == pytest.approx(result["beta"])
    assert lines[-1]["sparsity/density"] == pytest.approx(result["density"])
    assert [line["sparsity/beta"] for line in lines] == sorted(line["sparsity/beta"] for line in lines)


def test_an_export_of_neurons_is_smaller_and_has_the_same_outputs(launched: Path) -> None:
    record, _ = result_of(launched, "vit_base/spartan_neuron-50")
    answer = repro(launched, "export", str(record.path), "--kernels", "dense", "--out", str(launched / "out"))
    assert answer.returncode == 0, answer.stderr
    exported = load_exported(launched / "out")
    trained = masked_model(record.config(), finished_weights(record, "last"))
    size = record.config().model.input_shape
    images = torch.randn(6, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(exported(images), trained(images), rtol=0, atol=1e-5)
    kept, before = (sum(weight.numel() for weight in model.parameters()) for model in (exported, trained))
    assert kept == pytest.approx(before / 2, rel=0.02)

"""Table 2 through the same report: its claims, its bounds, its ablations, its files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from report_records import write_record

from repro.report.build import build
from repro.report.claims import judge_claims
from repro.report.collect import collect
from repro.rows import load_table

TABLE = load_table("table2")
DENSE, SPARSE = ("resnet50/dense", "resnet50/spartan-95")


def frame_of(tmp_path: Path, scale: str, dense: float, sparse: float) -> pd.DataFrame:
    rows = TABLE.select([DENSE, SPARSE])
    for row, accuracy in zip(rows, (dense, sparse), strict=True):
        for seed in range(3):
            write_record(tmp_path, row, scale, seed, top1_best_pct=accuracy)
    return collect(TABLE, rows, scale, range(3), tmp_path)


@pytest.mark.parametrize(
    ("scale", "sparse", "claim", "verdict"),
    [
        ("paper", 76.2, "holds", "reproduced"),
        ("paper", 75.5, "does not hold", "above"),
        ("local", 76.2, "not run at this scale", "other scale"),
    ],
)
def test_the_bound_of_resnet50_at_95(scale: str, sparse: float, claim: str, verdict: str, tmp_path: Path) -> None:
    frame = frame_of(tmp_path, scale, 76.9, sparse)
    found = {judged.claim.id: judged.verdict for judged in judge_claims(frame, TABLE)}
    assert found["spartan_resnet50_95"] == claim
    assert found["spartan_vit_base_block_90"].startswith("not run")
    line = frame.set_index("row").loc[SPARSE]
    assert line["top1_pct_verdict"] == "no published value"
    assert line["top1_drop_pct_max_verdict"] == verdict
    assert line["params_m"] == pytest.approx(0.05 * 25.557032, abs=1e-6)
    assert frame.set_index("row").loc[DENSE]["top1_drop_pct_max_verdict"] == "no published value"


def test_a_whole_report_with_ablations(tmp_path: Path) -> None:
    rows = TABLE.select(TABLE.words([], "local"))
    for number, row in enumerate(rows):
        write_record(tmp_path / "runs", row, "local", 0, top1_best_pct=60.0 + number)
    report = build(TABLE, rows, "local", [0], tmp_path / "runs", tmp_path / "reports")
    assert list(report.frame["row"]) == [row.id for row in rows]
    assert len(report.frame) == 29
    names = {path.name for path in report.paths}
    assert {"table2.csv", "table2.md", "table2.tex", "table2.html", "figure2.svg", "index.html"} <= names
    text = (tmp_path / "reports" / "table2" / "table2.md").read_text(encoding="utf-8")
    assert "vit_base/spartan-90-beta80" in text
    assert "Spartan at 95 % unstructured sparsity keeps ResNet-50" in text
    assert "81.18" in text

"""Table 2's report: values that are bounds, three seeds, and rows that the paper does not have."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_records import collect, view_of_results, write_record
from rich.console import Console

from repro.report.build import build
from repro.report.cells import Results
from repro.report.claim_verdicts import judge_claims
from repro.report.collect import collect_results
from repro.report.frame import frame_of
from repro.report.terminal import print_view
from repro.report.verdicts import judge
from repro.tables.loader import load_table
from repro.tables.rows import Metric, PublishedValue

TABLE = load_table("table2")
ROWS = {row.id: row for row in TABLE.every_row}
BOUND = Metric("top1_drop_pct_max", "Top-1 below dense", 0.0, "training", "test", bound="upper")


def verdict(measured: float, bound: float = 1.0, std: float | None = None) -> str:
    published = PublishedValue(BOUND.name, bound, 0.0, "confirmed", "test")
    return judge(measured, published, BOUND, n=3, std=std)


def test_less_than_a_point_is_less_than_a_point() -> None:
    assert [verdict(drop) for drop in (-2.0, 0.0, 0.99, 1.0, 1.01)] == [*["reproduced"] * 3, "above", "above"]
    assert verdict(1.1, std=5.0) == "above", "a spread makes no bound wider"


@given(st.floats(-50, 50), st.floats(0, 5))
def test_a_bound_is_kept_by_all_that_is_below_it(measured: float, bound: float) -> None:
    assert verdict(measured, bound) == ("reproduced" if measured < bound else "above")


def paper_results(root: Path, drops: dict[str, float], seeds: int = 3) -> Results:
    """Return results at paper scale in which each row has an accuracy drop relative to the dense model."""
    for id_, drop in drops.items():
        for seed, noise in zip(range(seeds), (-0.2, 0.0, 0.2), strict=False):
            write_record(root, ROWS[id_], "paper", seed, top1_best_pct=80.06 + noise - drop, top1_last_pct=79.0)
    return collect_results(TABLE, TABLE.select([], "paper"), "paper", range(3), root)


def test_a_drop_is_counted_by_seed_and_judged_by_the_bound(tmp_path: Path) -> None:
    drops = {
        "resnet50/dense": 0.0,
        "resnet50/spartan-95": 0.7,
        "vit_base/dense": 0.0,
        "vit_base/spartan-90": -1.12,
        "vit_base/spartan-90-block16": 1.3,
    }
    results = paper_results(tmp_path, drops)
    lines = frame_of(results).set_index("row")
    line = lines.loc["resnet50/spartan-95"]
    assert line["top1_drop_pct_max_verdict"] == "reproduced"
    assert line["top1_drop_pct_max_delta"] == pytest.approx(-0.3)
    assert line["gain_pct"] == pytest.approx(-0.7)
    assert line["top1_std_pct"] == pytest.approx(0.2)
    assert lines.loc["vit_base/spartan-90-block16", "top1_drop_pct_max_verdict"] == "above"
    assert lines.loc["vit_base/spartan-90", "top1_pct_verdict"] == "reproduced"
    assert lines.loc["resnet50/imp-95", "top1_pct_verdict"] == "no published value"
    found = {judged.claim.id: judged.verdict for judged in judge_claims(results)}
    assert found["spartan_resnet50_95"] == "holds"
    assert found["spartan_vit_base_block_90"] == "does not hold"
    assert found["spartan_vit_base_90"] == "holds"
    assert found["spartan_ahead_from_90"] == "not run"
    out = io.StringIO()
    print_view(view_of_results(results), Console(file=out, width=150, color_system=None))
    (printed,) = [text for text in out.getvalue().splitlines() if text.startswith(" spartan-95")]
    assert printed.split() == ["spartan-95", "1.28", *printed.split()[2:]], "parameters, counted exactly"
    assert "79.36 ± 0.20" in printed
    assert "0.70 ± 0.00" in printed


def test_two_of_three_seeds_are_partial(tmp_path: Path) -> None:
    frame = frame_of(paper_results(tmp_path, {"resnet50/dense": 0.0, "resnet50/spartan-95": 0.7}, seeds=2))
    assert frame.set_index("row").loc["resnet50/spartan-95", "top1_drop_pct_max_verdict"] == "partial (2 of 3)"


def test_a_row_at_the_end_of_the_file_stands_with_those_of_its_backbone(tmp_path: Path) -> None:
    rows = [ROWS[id_] for id_ in ("resnet50/dense", "vit_base/dense", "resnet50/spartan-95")]
    (grid,) = view_of_results(collect_results(TABLE, rows, "local", [0], tmp_path)).compact
    params = [column.head for column in grid.columns].index("Params (M)")
    assert {
        section.label: [(row.id, entries[params].text) for row, entries in lines] for section, lines in grid.lines
    } == {
        "ResNet-50": [("resnet50/dense", "25.56"), ("resnet50/spartan-95", "1.28")],
        "ViT-B/16": [("vit_base/dense", "86.57")],
    }


def test_rows_that_the_paper_does_not_have_stand_apart_and_in_no_figure(tmp_path: Path) -> None:
    for id_ in ("resnet50/dense", "resnet50/spartan-95", "resnet50/spartan-95-erk"):
        write_record(tmp_path / "runs", ROWS[id_], "local", 0, top1_best_pct=90.0)
    rows = TABLE.select([], "local")
    report = build(TABLE, rows, "local", [0], tmp_path / "runs", tmp_path / "reports")
    (grid,) = report.view.compact
    assert [section.label for section in grid.sections] == [
        "ResNet-50",
        "ViT-B/16",
        "ResNet-50, our own rows",
        "ViT-B/16, our own rows",
    ]
    frame = frame_of(report.view.results)
    assert frame.set_index("row").loc["resnet50/spartan-95-erk", "local_top1_best_pct"] == 90.0
    without = [row for row in rows if not row.own_overrides]
    again = build(TABLE, without, "local", [0], tmp_path / "runs", tmp_path / "others")
    names = {path.name for path in report.paths}
    assert {"figure2.svg", "table2.csv", "table2_sparsity.svg", "index.html"} <= names
    assert "table2_churn.svg" not in names, "no run has moved a mask"
    for name in ("figure2.pdf", "table2_sparsity.pdf"):
        assert (report.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert len(again.view.results.rows) == len(frame) - 9


def test_costs_of_table_2_are_counted_without_a_run(tmp_path: Path) -> None:
    frame = collect(TABLE, TABLE.rows, "local", [0], tmp_path).set_index("row")
    assert frame.loc["resnet50/dense", "params_m"] == 25.557032
    assert frame.loc["resnet50/dense", "macs_g"] == 4.089184256
    assert frame.loc["vit_base/dense", "params_m"] == 86.567656
    for id_, row in ROWS.items():
        if row in TABLE.rows:
            # The target applies to the whole model, including parameters that are never sparse.
            dense = frame.loc[f"{row.backbone}/dense", "params_m"]
            assert frame.loc[id_, "params_m"] == pytest.approx(dense * (1 - row.arch_sparsity_pct / 100), rel=1e-9)
    assert set(frame["time_note"]) == {"reference", "masked-dense weights: no speed-up"}

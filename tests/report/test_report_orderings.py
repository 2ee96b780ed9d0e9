"""Published orderings at local scale: the data are complete, and the answers match those worked by hand."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from report_records import view_of_results, write_record
from rich.console import Console

from repro.errors import UserError
from repro.report.build import view_of
from repro.report.claims import Ordering
from repro.report.collect import collect_results
from repro.report.orderings import count_line, judge_orderings, orderings_of, rows_in_orderings
from repro.report.tables import html_text, markdown_text
from repro.report.terminal import print_orderings
from repro.tables.loader import load_table, table_names
from repro.tables.rows import Row, Table

DENSE, SPARSE = "deit_small/dense", "deit_small/svite-70"
ORDER = Ordering(table="table1", above=DENSE, below=SPARSE)


def trained(table: Table, root: Path, values: dict[str, list[float]], scale: str = "local") -> list[Row]:
    rows = [row for row in table.rows if row.id in values]
    for row in rows:
        for seed, value in enumerate(values[row.id]):
            write_record(root, row, scale, seed, top1_best_pct=value)
    return rows


def test_each_ordering_is_one_of_published_values() -> None:
    orderings = [ordering for name in table_names() for ordering in orderings_of(load_table(name))]
    assert len(orderings) == len(set(orderings)) == 35
    spartan = load_table("table2")
    assert rows_in_orderings(spartan, "local") == {"vit_base/dense", "vit_base/spartan-90"}
    assert rows_in_orderings(spartan, "smoke") == set()


@pytest.mark.parametrize(
    ("sparse", "verdict", "evidence"),
    [
        # Differences 8, 5 and 5: mean 6, standard error 1, Student's t with two degrees of freedom 4.303.
        (
            [88.0, 92.0, 93.0],
            "agrees",
            "published +1.97; here +6.00 (95 % interval +1.70 to +10.30, paired by 3 ",
        ),
        # Differences 6, 7 and 8: over seeds +4.52 to +9.48; 97 and 90 % of 360 images differ by +3.45 to +10.77.
        (
            [90.0, 90.0, 90.0],
            "agrees",
            "published +1.97; here +7.00 (95 % interval +3.45 to +10.77, paired by 3 ",
        ),
        ([99.0, 100.0, 100.0], "contradicts", "published +1.97; here -2.67 (95 % interval -5.00 to -0.80, "),
        # Equal differences have no spread over seeds, but there are still only 360 test images.
        ([93.0, 94.0, 95.0], "undecided", "published +1.97; here +3.00 (95 % interval -0.07 to +6.23, "),
        ([95.0, 98.0, 97.0], "undecided", "published +1.97; here +0.33 (95 % interval "),
        ([94.0, 94.0], "partial", "published +1.97; here +2.50 (95 % interval "),
        ([], "not run", "published +1.97; not run here"),
    ],
)
def test_an_ordering_is_decided_by_the_interval_of_paired_differences(
    table: Table, tmp_path: Path, sparse: list[float], verdict: str, evidence: str
) -> None:
    rows = trained(table, tmp_path, {DENSE: [96.0, 97.0, 98.0], SPARSE: sparse})
    (found,) = judge_orderings(collect_results(table, rows, "local", range(3), tmp_path), [ORDER])
    assert found.ordering.name == f"{DENSE} > {SPARSE}"
    assert (found.verdict, found.evidence[: len(evidence)]) == (verdict, evidence)
    assert count_line([found]).startswith(f"1 published ordering: 1 {verdict}")


def test_orderings_share_an_error_of_five_percent(table: Table, tmp_path: Path) -> None:
    """Differences 8, 5 and 5 are decided alone (standard error 1, t = 4.303), but not as one of two (t = 6.205)."""
    other = Ordering(table="table1", above=DENSE, below="deit_small/svite-60")
    values = {DENSE: [96.0, 97.0, 98.0], SPARSE: [88.0, 92.0, 93.0], other.below: [88.0, 92.0, 93.0]}
    rows = trained(table, tmp_path, values)
    results = collect_results(table, rows, "local", range(3), tmp_path)
    assert [one.verdict for one in judge_orderings(results, [ORDER])] == ["agrees"]
    both = judge_orderings(results, [ORDER, other])
    assert [one.verdict for one in both] == ["undecided", "undecided"]
    assert both[0].evidence.endswith("(97.5 % interval -0.21 to +12.21, paired by 3 seeds); alone, at 95 %: agrees")
    assert count_line(both) == (
        "2 published orderings: 2 undecided; each tested at 97.5 %, so that all together err in at most 5 % "
        "(Bonferroni); at 95 % each, where chance alone decides 1 in 20: 2 agree"
    )


def test_one_seed_decides_nothing_and_other_scales_do_not_ask(table: Table, tmp_path: Path) -> None:
    rows = trained(table, tmp_path, {DENSE: [96.0], SPARSE: [90.0]})
    (found,) = judge_orderings(collect_results(table, rows, "local", [0], tmp_path), [ORDER])
    assert (found.verdict, found.evidence) == (
        "undecided",
        "published +1.97; here +6.00 (95 % interval +2.29 to +9.87, paired by 1 seed)",
    )
    for scale in ("smoke", "paper"):
        assert judge_orderings(collect_results(table, rows, scale, [0], tmp_path), [ORDER]) == ()


def test_a_report_shows_them_apart_from_the_claims_and_reads_the_rows_that_they_need(
    table: Table, tmp_path: Path
) -> None:
    rows = trained(table, tmp_path, {DENSE: [96.0, 97.0, 98.0], SPARSE: [90.0, 90.0, 90.0]})
    seen = view_of(table, rows[:1], "local", range(3), tmp_path)
    out = io.StringIO()
    print_orderings(seen, Console(file=out, width=200, color_system=None))
    for text in (markdown_text(seen), html_text(seen), out.getvalue()):
        assert "Published orderings at local scale (digits: no evidence for ImageNet)" in text
        assert "+3.45 to +10.77" in text
    assert "undecided" not in out.getvalue().partition("\n")[2], "the terminal lists what is decided"
    assert not view_of_results(collect_results(table, rows, "paper", range(3), tmp_path)).orderings


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"table": "table1", "above": SPARSE, "below": DENSE}, "the published top1_pct are in another order"),
        ({"table": "table1", "above": DENSE, "below": "deit_small/svite-71"}, "unknown; nearest: deit_small/svite-70"),
        ({"table": "table9", "above": DENSE, "below": SPARSE}, "table 'table9' unknown"),
        (
            {"table": "table1", "above": DENSE, "below": "deit_small/omp-50"},
            "no published top1_pct of deit_small/omp-50",
        ),
        ({"table": "table1", "above": DENSE}, "below"),
    ],
)
def test_a_wrong_ordering_is_one_line(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, str], message: str
) -> None:
    path = tmp_path / "paper_tables" / "claims.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"claims": [], "orderings": [entry]}), encoding="utf-8")
    monkeypatch.setenv("REPRO_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"claims\.yaml") as caught:
        orderings_of(table)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

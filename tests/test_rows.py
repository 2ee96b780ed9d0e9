"""The published table as data: complete, sourced, selectable."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from repro import paper_tables
from repro.errors import UserError
from repro.paper_tables import load_table
from repro.rows import KINDS, PublishedValue, Row

TABLE = load_table("table1")


def test_table1_has_the_42_published_rows_in_order() -> None:
    assert len(TABLE.rows) == 42
    assert [row.id for row in TABLE.rows[:3]] == ["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/svite-40"]
    assert {row.method for row in TABLE.rows} == {
        "dense", "svite", "s2vite", "svite_plus", "s2vite_plus", "omp", "gmp", "tp", "ssp",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "metric", "value", "kind"),
    [
        ("deit_small/svite_plus-5-50", "flops_saving_pct", 49.32, "confirmed"),
        ("deit_small/svite_plus-5-50", "time_saving_pct", 4.4, "confirmed"),
        ("deit_small/svite_plus-5-50", "top1_gain_pct", 0.28, "confirmed"),
        ("deit_base/s2vite-40", "top1_pct", 82.22, "confirmed"),
        ("deit_base/s2vite-40", "flops_saving_pct", 33.1, "cited"),
        ("deit_base/s2vite-40", "flops_saving_alt_pct", 34.5, "digitised"),
        ("deit_small/s2vite-40", "time_saving_pct", 22.7, "cited"),
    ],
)
def test_published_cells(row: str, metric: str, value: float, kind: str) -> None:
    published = TABLE.select([row])[0].best_published(metric)
    assert published is not None
    assert (published.value, published.kind) == (value, kind)


def test_every_value_has_a_source_and_a_kind() -> None:
    with (paper_tables.TABLES_DIR / "table1" / "published.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    assert len(records) == 91
    for record in records:
        assert record["source"] in TABLE.sources, record
        assert record["kind"] in KINDS, record
        assert float(record["value"]) == pytest.approx(float(record["value"]))


def test_rows_without_a_sourced_value_stay_empty() -> None:
    empty = [row.id for row in TABLE.rows if not row.published]
    assert empty == [
        "deit_tiny/svite-30", "deit_tiny/svite-40", "deit_tiny/omp-30", "deit_tiny/gmp-30", "deit_tiny/tp-30",
        "deit_small/omp-50", "deit_small/gmp-50", "deit_small/tp-50",
    ]  # fmt: skip


def test_the_strongest_kind_wins() -> None:
    values = [PublishedValue("top1_pct", 1.0, 0, kind, "x") for kind in ("digitised", "cited", "confirmed", "derived")]
    row = Row("t", "a/b", "a", "b", 0, 0, published=tuple(values))
    best = row.best_published("top1_pct")
    assert best is not None
    assert best.kind == "confirmed"


def test_grid_is_generated_and_keeps_published_rows() -> None:
    grid = TABLE.select(["grid"])
    assert len(grid) == 3 * 2 * 5 + 3 * 5 * 3
    ids = [row.id for row in grid]
    assert len(set(ids)) == len(ids)
    assert "deit_tiny/s2vite-70" in ids
    published = {row.id for row in TABLE.rows if row.published}
    for row in grid:
        assert bool(row.published) == (row.id in published)


def test_patterns() -> None:
    assert [row.id for row in TABLE.select(["deit_tiny/* !*/dense", "!*/?mp-*"])] == [
        "deit_tiny/svite-30", "deit_tiny/svite-40", "deit_tiny/s2vite-30", "deit_tiny/ssp-30", "deit_tiny/tp-30",
    ]  # fmt: skip
    assert TABLE.select([]) == TABLE.rows
    assert len(TABLE.select(["!*/dense"])) == 39
    # A pattern speaks of published rows; a row that only the grid has comes by its own name or the set's.
    assert [row.id for row in TABLE.select(["deit_tiny/svite-70"])] == ["deit_tiny/svite-70"]


def test_an_unknown_row_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no row matches 'deit_smal/dense'; nearest: deit_small/dense"):
        TABLE.select(["deit_smal/dense"])
    with pytest.raises(UserError, match="no table 'tabel1'"):
        load_table("tabel1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("deit_tiny/dense,top1_pct,72,,cited,nobody,", r"published.csv line \d+: source 'nobody' unknown"),
        ("deit_tiny/dense,top1_pct,72,,guessed,savit,", r"line \d+: kind 'guessed' unknown"),
        ("deit_tiny/dense,top2_pct,72,,cited,savit,", r"line \d+: metric 'top2_pct' unknown; nearest: top1_pct"),
        ("deit_tiny/dense,top1_pct,many,,cited,savit,", r"line \d+: 'many' is not a number"),
        ("deit_huge/dense,top1_pct,72,,cited,savit,", "values for rows not in rows.csv: deit_huge/dense"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(paper_tables.TABLES_DIR, tmp_path / "tables")
    with (tmp_path / "tables" / "table1" / "published.csv").open("a") as stream:
        stream.write(line + "\n")
    monkeypatch.setattr(paper_tables, "TABLES_DIR", tmp_path / "tables")
    with pytest.raises(UserError, match=message):
        load_table.__wrapped__("table1")


def test_row_overrides_compose_the_row() -> None:
    row = TABLE.select(["deit_small/svite_plus-5-50"])[0]
    assert row.overrides == (
        "backbone=deit_small", "method=svite_plus", "method.sparsity=0.5", "method.data_sparsity=0.05",
    )  # fmt: skip


SPARTAN = load_table("table2")


def test_table2_has_the_22_rows_of_its_paper_and_the_four_sourced_values() -> None:
    assert len(SPARTAN.rows) == 22
    assert {row.backbone for row in SPARTAN.rows} == {"resnet50", "vit_base"}
    values = {(row.id, v.metric, v.value, v.kind, v.source) for row in SPARTAN.rows for v in row.published}
    assert values == {
        ("resnet50/spartan-95", "top1_drop_pct_max", 1.0, "confirmed", "spartan_abstract"),
        ("vit_base/spartan-90-block16", "top1_drop_pct_max", 1.0, "confirmed", "spartan_abstract"),
        ("vit_base/dense", "top1_pct", 80.06, "cited", "rmt_manuscript"),
        ("vit_base/spartan-90", "top1_pct", 81.18, "cited", "rmt_manuscript"),
    }
    assert [row.id for row in SPARTAN.rows if "no sourced value" in row.note] == [
        row.id for row in SPARTAN.rows if not row.published
    ]


def test_the_paper_ran_three_trials() -> None:
    assert [SPARTAN.default_seeds(scale) for scale in ("paper", "local", "smoke")] == [3, 1, 1]
    for name in ("table1", "table3"):
        assert [load_table(name).default_seeds(scale) for scale in ("paper", "local", "smoke")] == [3, 1, 1]


def test_ablations_belong_to_table_2_at_the_local_scale_alone() -> None:
    ablations = SPARTAN.row_sets["ablations"]
    assert len(ablations) == 10
    assert SPARTAN.select([], "local") == (*SPARTAN.rows, *ablations)
    assert SPARTAN.select([], "paper") == SPARTAN.rows
    assert SPARTAN.select(["!*/dense"], "paper") == tuple(row for row in SPARTAN.rows if row.method != "dense")
    assert [row.id for row in SPARTAN.select(["*-erk"], "smoke")] == [
        "resnet50/spartan-95-erk",
        "vit_base/spartan-90-erk",
    ]
    for word in ("vit_base/spartan-90-erk", "ablations"):
        with pytest.raises(UserError, match=f"table2: {word} is not run at scale paper, only at local, smoke"):
            SPARTAN.select([word], "paper")
    # Without a scale (a stopwatch has none) every row is there.
    assert len(SPARTAN.select([])) == 32


def test_an_ablation_is_its_row_but_for_its_settings() -> None:
    ablation = SPARTAN.select(["vit_base/spartan-90-beta2"])[0]
    row = SPARTAN.select(["vit_base/spartan-90"])[0]
    assert ablation.overrides == (*row.overrides, "method.weights.beta_max=2")
    assert (ablation.is_run_at("local"), ablation.is_run_at("paper"), row.is_run_at("paper")) == (True, False, True)


def test_an_ablation_leaves_table_1_as_it_was() -> None:
    assert TABLE.select([], "local") == TABLE.select([]) == TABLE.rows
    (ablation,) = TABLE.select(["ablations"], "local")
    assert ablation.id == "deit_small/s2vite-40-as_released"
    assert ablation.overrides[-1] == "method.weights.growth=as_released"
    assert ablation.id not in {row.id for row in TABLE.select(["deit_small/*"], "local")}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("ablations.csv", "resnet50/spartan-95-erk,", "resnet50/spartan-95,", "also in rows.csv: resnet50/spartan-95"),
        ("ablations.csv", "resnet50/spartan-95-erk,", "resnet50/spartan-95-uniform,", "line 5: row .* is there twice"),
        (
            "table.yaml",
            "default: [published, ablations]",
            "default: [publishd]",
            "no row set 'publishd'; nearest: published",
        ),
    ],
)
def test_a_wrong_row_set_is_named(
    file: str, old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(paper_tables.TABLES_DIR, tmp_path / "tables")
    path = tmp_path / "tables" / "table2" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(paper_tables, "TABLES_DIR", tmp_path / "tables")
    with pytest.raises(UserError, match=message):
        load_table.__wrapped__("table2")

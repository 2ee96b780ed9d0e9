"""The published table as data: complete, sourced, selectable."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from repro import rows
from repro.composition import compose
from repro.errors import UserError
from repro.rows import KINDS, PublishedValue, Row, load_table

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
    with (rows.TABLES_DIR / "table1" / "published.csv").open(newline="") as stream:
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
    shutil.copytree(rows.TABLES_DIR, tmp_path / "tables")
    with (tmp_path / "tables" / "table1" / "published.csv").open("a") as stream:
        stream.write(line + "\n")
    monkeypatch.setattr(rows, "TABLES_DIR", tmp_path / "tables")
    with pytest.raises(UserError, match=message):
        load_table.__wrapped__("table1")


def test_row_overrides_compose_the_row() -> None:
    row = TABLE.select(["deit_small/svite_plus-5-50"])[0]
    assert row.overrides == (
        "backbone=deit_small", "method=svite_plus", "method.sparsity=0.5", "method.data_sparsity=0.05",
    )  # fmt: skip


TABLE2 = load_table("table2")


def test_table2_has_the_22_published_rows_and_only_sourced_values() -> None:
    assert len(TABLE2.rows) == 22
    found = {
        (row.id, value.metric): (value.value, value.kind, value.source)
        for row in TABLE2.rows
        for value in row.published
    }
    assert found == {
        ("resnet50/spartan-95", "top1_drop_pct_max"): (1.0, "confirmed", "spartan_abstract"),
        ("vit_base/dense", "top1_pct"): (80.06, "cited", "rmt_manuscript"),
        ("vit_base/spartan-90", "top1_pct"): (81.18, "cited", "rmt_manuscript"),
        ("vit_base/spartan-90-block16", "top1_drop_pct_max"): (1.0, "confirmed", "spartan_abstract"),
    }


def test_variants_have_their_overrides_and_their_names() -> None:
    rows_by_id = {row.id: row for row in TABLE2.select(["ablations"])}
    assert list(rows_by_id) == [
        *(f"vit_base/spartan-90-{name}" for name in ("beta1", "beta5", "beta80", "uniform", "erk", "macs")),
        "vit_base/spartan_neuron-50",
    ]
    assert rows_by_id["vit_base/spartan-90-beta5"].overrides[-1] == "method.weights.beta_max=5"
    for row in rows_by_id.values():
        compose(row.overrides)


def test_what_is_run_where_nobody_says() -> None:
    assert (TABLE2.seeds("paper"), TABLE2.seeds("local"), TABLE.seeds("paper")) == (3, 1, 1)
    assert len(TABLE2.select(TABLE2.words([], "local"))) == 22 + 7
    assert len(TABLE2.select(TABLE2.words([], "paper"))) == 22
    assert len(TABLE2.select(TABLE2.words(["!vit_base/*"], "local"))) == 16
    assert TABLE2.words(["resnet50/*"], "local") == ["resnet50/*"]
    assert TABLE.select(TABLE.words([], "local")) == TABLE.rows


def test_an_unknown_variant_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(rows.TABLES_DIR, tmp_path / "tables")
    path = tmp_path / "tables" / "table2" / "table.yaml"
    path.write_text(path.read_text().replace("variant: [beta1", "variant: [bata1"))
    monkeypatch.setattr(rows, "TABLES_DIR", tmp_path / "tables")
    with pytest.raises(UserError, match=r"table2/table\.yaml: no variant 'bata1'; nearest: beta1"):
        load_table.__wrapped__("table2")

"""The published table as data: complete, sourced, selectable."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from repro.errors import UserError
from repro.locations import TABLES_DIR
from repro.tables.loader import load_sources, load_table
from repro.tables.rows import KINDS, PublishedValue, Row

TABLE = load_table("table1")


def test_table1_has_the_published_rows_in_order() -> None:
    assert [row.id for row in TABLE.rows[:3]] == ["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/svite-40"]
    assert {row.method for row in TABLE.rows} >= {
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
    with (TABLES_DIR / "table1" / "published.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    assert len(records) == sum(len(row.published) for row in TABLE.rows)
    for record in records:
        assert record["source"] in TABLE.sources, record
        assert record["kind"] in KINDS, record


def test_rows_without_a_sourced_value_stay_empty() -> None:
    empty = {row.id for row in TABLE.rows if not row.published}
    assert empty >= {"deit_tiny/omp-30", "deit_tiny/gmp-30", "deit_tiny/tp-30", "deit_small/omp-50"}


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
    names = ("deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/omp-30", "deit_tiny/tp-30", "deit_small/dense")
    few = replace(TABLE, rows=tuple(row for row in TABLE.rows if row.id in names))
    assert [row.id for row in few.select(["deit_tiny/* !*/dense", "!*/?mp-*"])] == [
        "deit_tiny/svite-30", "deit_tiny/tp-30",
    ]  # fmt: skip
    assert TABLE.select([]) == TABLE.rows
    assert TABLE.select(["!*/dense"]) == tuple(row for row in TABLE.rows if row.method != "dense")
    # A pattern speaks of published rows; a row that only the grid has comes by its own name or the set's.
    assert [row.id for row in TABLE.select(["deit_tiny/svite-70"])] == ["deit_tiny/svite-70"]


def test_an_unknown_row_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no row matches 'deit_smal/dense'; nearest: deit_small/dense"):
        TABLE.select(["deit_smal/dense"])
    with pytest.raises(UserError, match="no table 'tabel1'"):
        load_table("tabel1")


def test_row_overrides_compose_the_row() -> None:
    row = TABLE.select(["deit_small/svite_plus-5-50"])[0]
    assert row.overrides == (
        "backbone=deit_small", "method=svite_plus", "method.sparsity=0.5", "method.data_sparsity=0.05",
    )  # fmt: skip


SPARTAN = load_table("table2")


def test_table2_has_the_rows_of_its_paper_and_the_four_sourced_values() -> None:
    assert {row.backbone for row in SPARTAN.rows} == {"resnet50", "vit_base"}
    values = {(row.id, v.metric, v.value, v.kind, v.source) for row in SPARTAN.rows for v in row.published}
    assert values >= {
        ("resnet50/spartan-95", "top1_drop_pct_max", 1.0, "confirmed", "spartan_abstract"),
        ("vit_base/spartan-90-block16", "top1_drop_pct_max", 1.0, "confirmed", "spartan_abstract"),
        ("vit_base/dense", "top1_pct", 80.06, "cited", "rmt_manuscript"),
        ("vit_base/spartan-90", "top1_pct", 81.18, "cited", "rmt_manuscript"),
    }
    assert {row.id for row in SPARTAN.rows if "no sourced value" in row.note} <= {
        row.id for row in SPARTAN.rows if not row.published
    }


def test_the_paper_ran_three_trials() -> None:
    assert [SPARTAN.default_seeds(scale) for scale in ("paper", "local", "smoke")] == [3, 1, 1]
    for name, local in (("table1", 3), ("table3", 1)):
        assert [load_table(name).default_seeds(scale) for scale in ("paper", "local", "smoke")] == [3, local, 1]


def test_ablations_belong_to_table_2_at_the_local_scale_alone() -> None:
    ablations = SPARTAN.row_sets["ablations"]
    assert len(ablations) >= 10
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
    assert SPARTAN.select([]) == SPARTAN.every_row


def test_patterns_that_select_no_row_are_refused() -> None:
    for words, scale in ((["!*"], None), (["deit_small/*", "!deit_small/*"], "smoke")):
        with pytest.raises(UserError, match=r"table1: no row is selected \(repro list table1 shows all\)"):
            TABLE.select(words, scale)
    nowhere = replace(TABLE, rows=(replace(TABLE.rows[0], scales=("paper",)),), row_sets={})
    assert nowhere.select([], "smoke") == ()  # `make report` goes through all tables


def test_an_ablation_is_its_row_but_for_its_settings() -> None:
    ablation = SPARTAN.select(["vit_base/spartan-90-beta2"])[0]
    row = SPARTAN.select(["vit_base/spartan-90"])[0]
    assert ablation.overrides == (*row.overrides, "method.weights.beta_max=2")
    assert (ablation.is_run_at("local"), ablation.is_run_at("paper"), row.is_run_at("paper")) == (True, False, True)


def test_an_ablation_leaves_table_1_as_it_was() -> None:
    assert TABLE.select([], "local") == TABLE.select([]) == TABLE.rows
    ablations = TABLE.select(["ablations"], "local")
    assert TABLE.select(["ablations"], "mini") == ablations
    assert len(ablations) == 6
    ablation = next(row for row in ablations if row.method == "s2vite")
    assert ablation.id == "deit_small/s2vite-40-as_released"
    assert ablation.overrides[-1] == "method.weights.growth=as_released"
    assert ablation.id not in {row.id for row in TABLE.select(["deit_small/*"], "local")}


def test_sources_that_contradict_each_other() -> None:
    table = load_table("table3")
    row = next(row for row in table.rows if row.id == "deit_base/ia_red2")
    assert row.best_published("top1_pct").value == 80.9  # type: ignore[union-attr]
    assert [(value.value, value.source) for value in row.conflicting(table.metrics["top1_pct"])] == [(80.3, "comcat")]
    assert not row.conflicting(table.metrics["throughput_img_s"]), "the same number from two sources"
    tiny = next(row for row in load_table("table1").rows if row.id == "deit_tiny/s2vite-30")
    assert not tiny.conflicting(table.metrics["params_m"]), "4.2 to 0.05 and 4.21 to 0.005 agree"


@pytest.mark.parametrize("name", ["devices.csv", "throughput.csv"])
def test_the_rates_behind_cost_estimates_have_sources(name: str) -> None:
    with (TABLES_DIR / name).open(newline="") as stream:
        records = list(csv.DictReader(stream))
    rates = [record["source"] for record in records if record.get("inference_img_s", record.get("peak_tflops"))]
    assert rates
    assert {*rates} <= load_sources().keys()

"""Table 3 as data, what it says of a scale, and runs that begin with runs that begin with others."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from repro import paper_tables
from repro.composition import compose
from repro.errors import UserError
from repro.launch import submit as submitting
from repro.launch.costing import Throughput, cost, images
from repro.launch.plan import plan
from repro.paper_tables import load_table
from repro.report.verdicts import judge
from repro.rows import KINDS, Row
from repro.schedule import training_length

TABLE = load_table("table3")
PAPER = "data.root=somewhere"


@pytest.mark.parametrize(
    ("row", "metric", "value", "kind"),
    [
        ("deit_small/dense", "top1_pct", 79.8, "cited"),
        ("deit_small/ia_red2", "top1_pct", 79.1, "confirmed"),
        ("deit_small/ia_red2", "macs_g", 3.2, "cited"),
        ("deit_small/ia_red2", "throughput_img_s", 1360, "confirmed"),
        ("deit_base/ia_red2", "speedup", 1.515, "derived"),
        ("deit_base_384/ia_red2", "top1_pct", 81.9, "cited"),
        ("deit_small/linformer", "top1_pct", 75.7, "confirmed"),
    ],
)
def test_published_cells(row: str, metric: str, value: float, kind: str) -> None:
    published = TABLE.select([row])[0].best_published(metric)
    assert published is not None
    assert (published.value, published.kind) == (value, kind)


def test_every_value_has_a_source_and_a_kind() -> None:
    with (paper_tables.TABLES_DIR / "table3" / "published.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    for record in records:
        assert record["source"] in TABLE.sources, record
        assert record["kind"] in KINDS, record
    speedups = {record["row"]: record["value"] for record in records if record["metric"] == "speedup"}
    rates = {(record["row"], record["metric"]): float(record["value"]) for record in records}
    for row, value in speedups.items():
        if (row, "throughput_img_s") in rates:
            dense = rates[f"{row.partition('/')[0]}/dense", "throughput_img_s"]
            assert rates[row, "throughput_img_s"] / dense == pytest.approx(float(value), abs=6e-4)


def test_rows_of_our_own_have_no_published_value() -> None:
    own = TABLE.row_sets["ablations"]
    assert {row.id for row in own} >= {f"deit_small/{name}" for name in ("ia_red2-d1", "ia_red2-d2", "random_dropping")}
    assert not any(row.published for row in own)


def test_a_scale_means_what_the_table_says() -> None:
    (small,) = TABLE.select(["deit_small/ia_red2"])
    (larger,) = TABLE.select(["deit_base_384/ia_red2"])
    local = compose(small.overrides_at("local"))
    assert (local.data.name, local.recipe.name, local.model.image_size) == ("shapes", "shapes_local", 24)
    assert compose(larger.overrides_at("local")).model.image_size == 32, "a later pattern wins"
    paper = compose([*small.overrides_at("paper"), PAPER])
    assert (paper.data.name, paper.recipe.epochs, paper.model) == ("imagenet", 300, paper.backbone.paper)
    other = load_table("table1").select(["deit_small/dense"])[0]
    assert other.overrides_at("local") == ("scale=local", *other.overrides)


def test_a_rows_own_settings_win_over_its_tables() -> None:
    row = Row(
        "t",
        "a/b",
        "deit_small",
        "dense",
        0,
        0,
        settings=("recipe.epochs=7",),
        by_scale=(("local", ("recipe.epochs=3",)),),
    )
    assert compose(row.overrides_at("local")).recipe.epochs == 7
    assert compose([*row.overrides_at("smoke")]).recipe.epochs == 7


@pytest.mark.parametrize(("row", "stages"), [("ia_red2", 3), ("ia_red2-d1", 1), ("ia_red2-d2", 2)])
@pytest.mark.parametrize("scale", ["paper", "local"])
def test_the_training_is_that_of_the_paper_in_stages(row: str, stages: int, scale: str) -> None:
    (found,) = TABLE.select([f"deit_small/{row}"])
    config = compose([*found.overrides_at(scale), PAPER] if scale == "paper" else found.overrides_at(scale))
    with (paper_tables.TABLES_DIR / "table3" / "training.csv").open(newline="") as stream:
        published = next(record for record in csv.DictReader(stream) if record["backbone"] == "deit_small")
    own, options = config.own_recipe, config.method.tokens.options  # type: ignore[union-attr]
    a_stage = int(published["epochs_interpreter"]) + int(published["epochs_blocks"])
    assert options["interpreter_share"] == pytest.approx(int(published["epochs_interpreter"]) / a_stage)
    assert (own.optimizer, options["heads"]) == (published["optimizer"], int(published["heads"]))
    assert config.stages == stages
    assert (own.mixup, own.cutmix, own.weight_decay, own.ema_decay) == (0, 0, 0, None)
    if scale == "paper":
        assert own.epochs == stages * a_stage
        assert own.peak_lr == pytest.approx(float(published["lr"]))
        assert own.micro_batch == int(published["images_per_gpu"])
    else:
        assert own.epochs % stages == 0
        assert training_length(config, 4096).updates == own.epochs * 64


def test_a_baseline_at_a_budget_comes_after_what_it_takes_it_from(tmp_path: Path) -> None:
    runs = plan(TABLE, TABLE.select(["deit_small/random_dropping"]), "local", [0], tmp_path)
    assert [run.row.id for run in runs] == ["deit_small/dense", "deit_small/ia_red2", "deit_small/random_dropping"]
    dense, learned, chance = runs
    assert dense.starts_from is None
    assert learned.starts_from is dense
    assert chance.starts_from is learned
    every = plan(TABLE, TABLE.select(), "local", [0, 1], tmp_path)
    own = [row for row in TABLE.select() if not row.run_of]
    assert len({run.record.path for run in every}) == len(every) == 2 * len(own)


def test_another_tables_dense_row_can_be_begun_with(tmp_path: Path) -> None:
    chosen = TABLE.select(["deit_small/ia_red2"])
    runs = plan(TABLE, chosen, "paper", [0], tmp_path, [PAPER, "method.starts_from=table1/dense"])
    assert [(run.row.table, run.row.id) for run in runs] == [
        ("table1", "deit_small/dense"),
        ("table3", "deit_small/ia_red2"),
    ]
    assert runs[0].config.recipe.name == "deit_paper"
    with pytest.raises(UserError, match=r"table2 has no row deit_small/dense to begin with"):
        plan(TABLE, chosen, "paper", [0], tmp_path, [PAPER, "method.starts_from=table2/dense"])
    alone = plan(TABLE, chosen, "paper", [0], tmp_path, [PAPER, "method.starts_from=pretrained"])
    assert [run.row.id for run in alone] == ["deit_small/ia_red2"]


def test_a_circle_of_beginnings_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="deit_small/ia_red2 begins with deit_small/ia_red2"):
        plan(TABLE, TABLE.select(["deit_small/ia_red2"]), "local", [0], tmp_path, ["method.starts_from=ia_red2"])


def test_slurm_gets_a_chain_in_its_order_each_job_after_the_one_that_it_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = TABLE.select(["deit_small/random_dropping deit_small/attention_dropping deit_small/ia_red2-d1"])
    runs = plan(TABLE, chosen, "smoke", [0], tmp_path, ["launcher=slurm"])
    for run in runs:
        run.create()
    submitted: list[tuple[list[str], list[str]]] = []

    def array(some: Any, launcher: Any, root: Path, after: list[str], *_: int) -> dict[Path, str]:
        submitted.append(([run.row.id.partition("/")[2] for run in some], after))
        return {run.record.path: f"{len(submitted)}_{index}" for index, run in enumerate(some)}

    monkeypatch.setattr(submitting, "_submit_array", array)
    monkeypatch.setattr(submitting.slurm, "configuration", dict)
    assert submitting.submit(runs, runs[0].config.launcher, tmp_path) == 3  # type: ignore[arg-type]
    assert submitted == [
        (["dense"], []),
        (["ia_red2-d1", "ia_red2"], ["afterok:1_0"]),
        (["random_dropping", "attention_dropping"], ["afterok:2_1"]),
    ]


def test_the_video_rows_are_trained_and_judged_on_videos() -> None:
    (dense,), (row,) = TABLE.select(["timesformer/dense"]), TABLE.select(["timesformer/ia_red2"])
    with (paper_tables.TABLES_DIR / "table3" / "training.csv").open(newline="") as stream:
        published = next(record for record in csv.DictReader(stream) if record["backbone"] == "timesformer_base")
    config = compose([*row.overrides_at("paper"), PAPER])
    own, options = config.own_recipe, config.method.tokens.options  # type: ignore[union-attr]
    epochs = int(published["epochs_interpreter"]), int(published["epochs_blocks"])
    assert (config.stages, own.epochs) == (int(published["interpreters"]), sum(epochs))
    assert options["interpreter_share"] == pytest.approx(epochs[0] / sum(epochs))
    assert (own.optimizer, own.micro_batch) == (published["optimizer"], int(published["images_per_gpu"]))
    assert own.peak_lr == pytest.approx(float(published["lr"]))
    assert config.data.name == TABLE.dataset_of(row.id) == "kinetics400"
    assert TABLE.dataset_of("deit_small/ia_red2") == "imagenet"
    assert config.model == compose([*dense.overrides_at("paper"), PAPER]).model == config.backbone.paper
    assert compose(row.overrides_at("local")).data.name == "shapes_video"
    bounds = {metric: row.best_published(metric) for metric in ("speedup_max", "top1_drop_pct_max")}
    assert {metric: value and value.value for metric, value in bounds.items()} == {
        "speedup_max": 1.4,
        "top1_drop_pct_max": 0.7,
    }
    assert TABLE.metrics["top1_drop_pct_max"].bound == "upper"


@pytest.mark.parametrize(
    ("times", "verdict"), [(0.9, "below"), (1.0, "below"), (1.34, "below"), (1.37, "reproduced"), (1.5, "above")]
)
def test_up_to_so_many_times_as_fast_is_not_kept_by_being_slow(times: float, verdict: str) -> None:
    (row,) = TABLE.select(["timesformer/ia_red2"])
    metric = TABLE.metrics["speedup_max"]
    published = row.best_published("speedup_max")
    found = judge(times, published, metric, n=21, std=None, state="done", scale="paper", seeds=3)
    assert found == verdict


def test_the_table_holds_every_value_that_is_published_and_no_other() -> None:
    """As they were handed over with their sources, cell by cell: a changed digit fails here."""
    held = {
        (row.id, value.metric, value.value, value.uncertainty, value.kind, value.source)
        for row in TABLE.rows
        for value in row.published
    }
    small, base, larger, video = "deit_small", "deit_base", "deit_base_384", "timesformer"
    assert held == {
        (f"{small}/dense", "top1_pct", 79.8, 0.0, "cited", "evo_vit"),
        (f"{small}/dense", "macs_g", 4.6, 0.05, "cited", "as_vit"),
        (f"{small}/dense", "throughput_img_s", 940.0, 0.0, "cited", "evo_vit"),
        (f"{small}/ia_red2", "top1_pct", 79.1, 0.0, "confirmed", "iared2_record"),
        (f"{small}/ia_red2", "macs_g", 3.2, 0.05, "cited", "as_vit"),
        (f"{small}/ia_red2", "macs_g", 3.15, 0.005, "cited", "spvit_plot"),
        (f"{small}/ia_red2", "throughput_img_s", 1360.0, 0.0, "confirmed", "iared2_record"),
        (f"{small}/ia_red2", "speedup", 1.447, 0.005, "derived", "evo_vit"),
        (f"{small}/linformer", "top1_pct", 75.7, 0.0, "confirmed", "iared2_record"),
        (f"{base}/dense", "top1_pct", 81.8, 0.0, "cited", "evo_vit"),
        (f"{base}/dense", "throughput_img_s", 299.0, 0.0, "cited", "evo_vit"),
        (f"{base}/ia_red2", "top1_pct", 80.9, 0.0, "cited", "evo_vit"),
        (f"{base}/ia_red2", "throughput_img_s", 453.0, 0.0, "cited", "evo_vit"),
        (f"{base}/ia_red2", "speedup", 1.515, 0.005, "derived", "evo_vit"),
        (f"{larger}/dense", "top1_pct", 82.8, 0.0, "cited", "evo_vit"),
        (f"{larger}/dense", "throughput_img_s", 87.0, 0.0, "cited", "evo_vit"),
        (f"{larger}/ia_red2", "top1_pct", 81.9, 0.0, "cited", "evo_vit"),
        (f"{larger}/ia_red2", "throughput_img_s", 129.0, 0.0, "cited", "evo_vit"),
        (f"{larger}/ia_red2", "speedup", 1.483, 0.005, "derived", "evo_vit"),
        (f"{video}/ia_red2", "speedup_max", 1.4, 0.0, "confirmed", "iared2_abstract"),
        (f"{video}/ia_red2", "top1_drop_pct_max", 0.7, 0.0, "confirmed", "iared2_abstract"),
    }


ROOTS = "data.root={imagenet: /images, kinetics400: /videos}"


def test_each_data_set_has_a_folder_of_its_own(tmp_path: Path) -> None:
    rows_of_both = TABLE.select(["deit_small/dense timesformer/dense"])
    runs = plan(TABLE, rows_of_both, "paper", [0], tmp_path, [ROOTS])
    assert [run.config.data.root for run in runs] == ["/images", "/videos"]
    same = plan(TABLE, rows_of_both[:1], "paper", [0], tmp_path, ["data.root=/images"])
    assert same[0].config.signature == runs[0].config.signature
    with pytest.raises(
        UserError, match=r"data\.root=/one: rows of imagenet and kinetics400 cannot all have their data"
    ):
        plan(TABLE, rows_of_both, "paper", [0], tmp_path, ["data.root=/one"])
    local = plan(TABLE, rows_of_both, "local", [0], tmp_path, ["data.root=/cache"])
    assert {run.config.data.root for run in local} == {"/cache"}, "generated data share a cache"
    with pytest.raises(UserError, match=r"data\.root: none for data=kinetics400"):
        plan(TABLE, rows_of_both, "paper", [0], tmp_path, ["data.root={imagenet: /images}"])
    with pytest.raises(UserError, match=r"data\.root: no data 'imagnet'; nearest: imagenet"):
        plan(TABLE, rows_of_both[:1], "paper", [0], tmp_path, ["data.root={imagnet: /images}"])


def test_the_plan_counts_videos_that_only_a_run_can_count() -> None:
    (row,) = TABLE.select(["timesformer/dense"])
    config = compose([*row.overrides_at("paper"), PAPER])
    assert images(config) == 15 * (240436 // 16 * 16)
    assert cost(config, Throughput(100.0, "a GPU", "a test"), None).wall_hours == pytest.approx(
        images(config) / 100 / 3600
    )
    assert "images_expected" not in config.data.model_dump()
    assert config.data.images_per_epoch is None

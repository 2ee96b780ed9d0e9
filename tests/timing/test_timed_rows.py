"""The time column: which rows are timed, how, and what is written. No assertion depends on a measured time."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from repro.config.costs import REFERENCE, physical_macs_g, why_untimed
from repro.config.published_training import paper_config
from repro.counting.cost_model import BY_TRAINING, NO_SHAPE
from repro.errors import UserError
from repro.files import write_json
from repro.inference.build import physical_model
from repro.report.statistics import median_interval
from repro.runs.timing import Setting, Timing, read_timing, timing_path, timings_by_batch, write_timing
from repro.tables.loader import load_table
from repro.tables.rows import Table
from repro.timing.stopwatch import PAIRS, VERDICT_PAIRS, time_rows
from repro.timing.timed_rows import timed_rows
from repro.timing.timing_table import timing_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table("table1")


def test_rows_with_a_published_time_come_first_and_masked_rows_never(table: Table) -> None:
    names = [timed.row.id for timed in timed_rows(table, table.rows)]
    published = [row.id for row in table.rows if row.best_published("time_saving_pct")]
    assert names[: len(published)] == published
    assert {name.partition("/")[2].rpartition("-")[0].split("-")[0] for name in names} == {
        *("s2vite", "ssp", "svite_plus", "s2vite_plus")
    }


def test_the_timed_model_has_the_counted_macs(table: Table) -> None:
    (row,) = table.select(["deit_tiny/s2vite-30"])
    model = physical_model(paper_config(row))
    block = model.blocks[0]  # type: ignore[index]
    # 0.7 of 3 heads is 2, of 768 neurons 537.
    assert (block.attn.num_heads, block.attn.proj.in_features, block.mlp.fc1.out_features) == (2, 128, 537)
    # Per block and token: qkv 3*192*128, proj 192*128, fc1 and fc2 2*192*537; attention 2*197*128 a token.
    by_hand = 12 * 197 * (4 * 192 * 128 + 2 * 192 * 537 + 2 * 197 * 128) + 196 * 768 * 192 + 192 * 1000
    assert physical_macs_g(paper_config(row).model, paper_config(row).method) == pytest.approx(by_hand / 1e9)


def test_dropped_tokens_leave_the_timed_model(table: Table) -> None:
    (row,) = table.select(["deit_small/svite_plus-30-50"])
    config = paper_config(row)
    model = physical_model(config)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))  # type: ignore[index]
    with torch.inference_mode():
        model(torch.zeros(1, 3, 224, 224))
    assert seen == [138]


def test_timings_are_written_shared_by_shape_and_not_repeated(table: Table, tmp_path: Path) -> None:
    rows = table.select(["deit_tiny/*"])
    lines: list[str] = []
    alone = {"pairs": 3, "is_column_only": True}
    assert time_rows(table, rows, tmp_path, budget_s=600, log=lines.append, **alone) == []
    assert [line.split()[0] for line in lines] == ["deit_tiny/s2vite-30:", "deit_tiny/ssp-30:"]
    first, second = (read_timing(tmp_path, "table1", name) for name in ("deit_tiny/s2vite-30", "deit_tiny/ssp-30"))
    assert first is not None
    assert second is not None
    assert first.pairs == second.pairs
    assert len(first.pairs) == 3
    assert ("timed_as" in first.provenance, second.provenance["timed_as"]) == (False, "deit_tiny/s2vite-30")
    assert (first.setting.batch, first.setting.threads, first.setting.dtype) == (1, 1, "float32")
    assert first.macs_saving_pct == pytest.approx(30.75, abs=0.01)
    time_rows(table, rows, tmp_path, log=lines.append, **alone)
    assert len(lines) == 2


class FakeTimer:
    """Replaces `time_pairs`: every pair takes 1.0 and 0.9 s."""

    def __init__(self, pairs: int | None = None) -> None:
        self.pairs = pairs
        self.batches: list[int] = []
        self.requested: list[int] = []

    def __call__(self, *inputs: object, pairs: int, **_: object) -> tuple[tuple[float, float], ...]:
        images = inputs[2]
        assert isinstance(images, torch.Tensor)
        self.batches.append(len(images))
        self.requested.append(pairs)
        return ((1.0, 0.9),) * (self.pairs or pairs)


def test_the_batch_of_the_column_is_timed_first(table: Table, tmp_path: Path) -> None:
    masked, *rows = table.select(["deit_tiny/svite-30", "deit_tiny/s2vite-30", "deit_small/s2vite-40"])
    lines: list[str] = []
    timer = FakeTimer()
    assert time_rows(table, [masked, *rows], tmp_path, log=lines.append, timer=timer) == []
    assert timer.batches == [1, 1, 8, 8]
    for row in rows:
        column, (further,) = read_timing(tmp_path, "table1", row.id), timings_by_batch(tmp_path, "table1", row.id)
        assert column is not None
        assert (column.setting.batch, further.setting.batch) == (1, 8)
        pairs = VERDICT_PAIRS if row.best_published("time_saving_pct") else PAIRS
        assert (len(column.pairs), len(further.pairs)) == (pairs, PAIRS), "a verdict depends on the column"
        assert further.seconds == (1.0, 0.9)
    time_rows(table, rows, tmp_path, log=lines.append, timer=timer)
    assert len(lines) == 4, "existing timings are not repeated"
    time_rows(table, rows[:1], tmp_path, batches=(2, 16, 4), log=lines.append, timer=timer)
    assert [timing.setting.batch for timing in timings_by_batch(tmp_path, "table1", rows[0].id)] == [4, 8, 16]
    column = read_timing(tmp_path, "table1", rows[0].id)
    assert column is not None
    assert column.setting.batch == 2
    assert time_rows(table, rows[1:2], tmp_path, batches=(32, 64), budget_s=0) == [(rows[1], 32), (rows[1], 64)]


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_every_row_has_a_time_or_a_reason(name: str) -> None:
    every = load_table(name)
    with_time = {timed.row.id for timed in timed_rows(every, every.every_row)}
    for row in every.every_row:
        if row.reads_runs_of:
            continue
        reason = why_untimed(paper_config(row).method)
        assert bool(reason) != (row.id in with_time), row.id
        assert not reason or reason in (REFERENCE, BY_TRAINING, NO_SHAPE)
        if row.method == "dense":
            assert reason == REFERENCE
    if name == "table3":
        assert {"timesformer/ia_red2", "deit_base_384/ia_red2", "deit_small/linformer"} <= with_time
    if name == "table2":
        assert why_untimed(paper_config(every.select(["resnet50/spartan-80"])[0]).method) == NO_SHAPE
        assert why_untimed(paper_config(every.select(["vit_base/spartan_neuron-50"])[0]).method) == BY_TRAINING


@pytest.mark.parametrize(
    ("device", "threads", "latency", "throughput"),
    [
        ("a GPU", 0, "50.0 % (200.0 to 100.0 ms)", "50.0 % (20.0 to 40.0 images/s)"),
        # Absolute times on a CPU depend on other load.
        ("a CPU", 2, "50.0 % (0.50 of the latency)", "50.0 % (2.00 times the images/s)"),
    ],
)
def test_the_summary_shows_a_time_or_a_reason_for_each_row(
    table: Table, tmp_path: Path, device: str, threads: int, latency: str, throughput: str
) -> None:
    rows = table.select(["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/s2vite-30", "deit_tiny/ssp-30"])
    for batch in (1, 4):
        setting = Setting(device, batch, "float32", threads, False)
        pairs = ((0.2, 0.1), (0.4, 0.3), (0.2, 0.1))
        timing = Timing("table1", "deit_tiny/s2vite-30", "deit_tiny/dense", setting, pairs, "", 5.0, {})
        write_timing(tmp_path, timing, is_extra_batch=batch > 1)
    console = Console(width=220, record=True, file=io.StringIO())
    console.print(timing_table(table, rows, tmp_path))
    shown = {line.split("│")[1].strip(): line for line in console.export_text().splitlines() if "│" in line}
    assert latency in shown["deit_tiny/s2vite-30"]
    assert throughput in shown["deit_tiny/s2vite-30"]
    assert REFERENCE in shown["deit_tiny/dense"]
    assert NO_SHAPE in shown["deit_tiny/svite-30"]
    assert "ran out; run the same command again" in shown["deit_tiny/ssp-30"]


def test_rows_beyond_the_budget_are_returned(table: Table, tmp_path: Path) -> None:
    rows = table.select(["deit_base/s2vite-40"])
    assert time_rows(table, rows, tmp_path, budget_s=0) == [(rows[0], 1), (rows[0], 8)]
    assert not timing_path(tmp_path, "table1", rows[0].id).exists()


def test_a_table_without_smaller_models_says_so(tmp_path: Path) -> None:
    table = load_table("table2")
    lines: list[str] = []
    assert time_rows(table, table.rows, tmp_path, log=lines.append) == []
    assert lines == [
        "  table2: nothing to time: none of these rows has a smaller model before training; "
        "repro export times a finished model"
    ]


def test_a_row_with_a_verdict_gets_more_pairs(table: Table, tmp_path: Path) -> None:
    timer = FakeTimer()
    names = ["deit_small/svite_plus-5-50", "deit_small/svite_plus-10-50"]
    time_rows(table, table.select(names), tmp_path, is_column_only=True, log=lambda _: None, timer=timer)
    assert timer.requested == [VERDICT_PAIRS, PAIRS], "only the first has a published time"
    # Enough that the 95 % interval of the median excludes outliers.
    assert median_interval(range(VERDICT_PAIRS)) == (5, 15)


def test_a_published_speed_up_is_a_published_time(tmp_path: Path) -> None:
    table, timer = load_table("table3"), FakeTimer()
    lines: list[str] = []
    rows = table.select(["deit_small/linformer deit_small/ia_red2"])
    time_rows(table, rows, tmp_path, is_column_only=True, log=lines.append, timer=timer)
    assert [line.split()[0] for line in lines] == ["deit_small/ia_red2:", "deit_small/linformer:"]
    assert timer.requested == [VERDICT_PAIRS, PAIRS]


def test_too_few_pairs_and_another_torch_are_timed_again(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_tiny/s2vite-30"])

    def timed(pairs: int) -> int:
        lines: list[str] = []
        time_rows(table, [row], tmp_path, is_column_only=True, log=lines.append, timer=FakeTimer(pairs))
        return len(lines)

    assert [timed(3), timed(3)] == [1, 1], "three pairs have no interval"
    assert [timed(6), timed(6)] == [1, 0]
    path = timing_path(tmp_path, "table1", row.id)
    timing = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**timing, "provenance": {**timing["provenance"], "torch": "1.0"}})
    assert [timed(6), timed(6)] == [1, 0]


def test_median_and_quartiles_by_hand() -> None:
    setting = Setting("gpu", 256, "bfloat16", 0, False)
    pairs = ((1.0, 0.9), (1.0, 0.6), (2.0, 1.4))  # savings 10, 40 and 30 %
    timing = Timing("table1", "a/b", "a/dense", setting, pairs, "tokens dropped", 5.0, {})
    assert timing.time_saving_pct == pytest.approx(30)
    assert timing.range_pct == pytest.approx((20, 35))
    assert setting.text == "gpu, batch 256, bfloat16"


def test_another_schema_and_another_device_are_refused(table: Table, tmp_path: Path) -> None:
    write_json(timing_path(tmp_path, "table1", "a/b"), {"schema": 99})
    with pytest.raises(UserError, match="remove it to measure again"):
        read_timing(tmp_path, "table1", "a/b")
    with pytest.raises(UserError, match="--device mps: no such device; valid: auto, cpu, cuda"):
        time_rows(table, (), tmp_path, device="mps")


def test_a_launcher_of_a_site_is_known_by_its_config(tmp_path: Path) -> None:
    """A launcher with another name can be Slurm: the login node is not the device that runs."""
    (tmp_path / "conf" / "launcher").mkdir(parents=True)
    (tmp_path / "conf" / "launcher" / "mine.yaml").write_text("defaults: [slurm, _self_]\npartition: gpu\n")
    words = ["bench", "time", "table1", "deit_tiny/dense"]  # no row that is faster
    for launcher, is_timed in (("mine", False), ("slurm", False), ("local", True)):
        answer = subprocess.run(
            [sys.executable, "-m", "repro", *words, f"launcher={launcher}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "REPRO_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert (f"not timed: launcher={launcher} runs on other machines" in answer.stdout) != is_timed
    dry_run = subprocess.run(
        ["make", "-n", "table1", "LAUNCHER=mine"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.search("repro bench time table1 .*launcher=mine", dry_run.stdout)


def test_a_row_that_reads_the_runs_of_another_is_not_timed() -> None:
    table = load_table("table3")
    assert any(row.reads_runs_of for row in table.every_row)
    assert not [timed.row.id for timed in timed_rows(table, table.every_row) if timed.row.reads_runs_of]

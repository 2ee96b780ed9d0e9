"""Times of rows whose keep rates depend on the images: planned keep rates alone decide nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_records import collect, write_record, write_saving

from repro.config.costs import physical_macs_g
from repro.config.published_training import paper_config
from repro.counting.keep_rates import result_names
from repro.report.claim_verdicts import judge_claims
from repro.report.collect import collect_results
from repro.report.columns import compact_entry
from repro.report.times import TIMED_OTHERWISE
from repro.runs.timing import read_timing, write_timing
from repro.tables.loader import load_table
from repro.tables.rows import Row
from repro.timing.timed_rows import timed_rows, with_measured_keep_rates

TABLE = load_table("table3")
(ROW,) = TABLE.select(["deit_small/ia_red2"])


def kept(*rates: float) -> dict[str, Any]:
    """Return the keep rates in a run's result, the same for every image."""
    pairs = zip((result_names(stage) for stage in range(1, len(rates) + 1)), rates, strict=True)
    return {name: value for (mean, square), rate in pairs for name, value in ((mean, rate), (square, rate**2))}


def time_it(root: Path, row: Row, saving_pct: float) -> None:
    """Write a GPU timing of the model that `timed_rows` would time now."""
    write_saving(root, row, saving_pct, device="NVIDIA V100", threads=0)
    timing = read_timing(root, "table3", row.id)
    assert timing is not None
    (timed,) = timed_rows(TABLE, [row], root)
    dense = physical_macs_g(timed.config.model, paper_config(timed.reference).method)
    saving = 100 * (1 - physical_macs_g(timed.config.model, timed.config.method) / dense)
    write_timing(root, replace(timing, macs_saving_pct=saving, faster_by=timed.faster_by))


def line(root: Path, scale: str, seeds: int) -> Any:
    return collect(TABLE, [ROW], scale, range(seeds), root).iloc[0]


def claim(root: Path, scale: str, seeds: int) -> str:
    rows = TABLE.select([], scale)
    found = judge_claims(collect_results(TABLE, rows, scale, range(seeds), root))
    return next(one.verdict for one in found if one.claim.id == "ia_red2_small_throughput")


def test_a_time_at_planned_keep_rates_decides_nothing_at_any_scale(tmp_path: Path) -> None:
    time_it(tmp_path, ROW, 100 * (1 - 1 / 1.447))
    assert line(tmp_path, "local", 1)["speedup_verdict"] == "missing"
    write_record(tmp_path, ROW, "local", 0, **kept(0.3, 0.2, 0.1))
    found = line(tmp_path, "local", 1)
    assert found["speedup"] == pytest.approx(1.447, abs=1e-3)
    assert (found["speedup_verdict"], found["throughput_img_s_verdict"]) == ("other scale", "other scale")
    assert claim(tmp_path, "local", 1) == "not run at this scale"
    assert line(tmp_path, "paper", 3)["speedup_verdict"] == "missing"


def test_a_time_is_decided_by_what_the_published_training_kept(tmp_path: Path) -> None:
    time_it(tmp_path, ROW, 100 * (1 - 1 / 1.447))  # before any run, with the planned keep rates
    for seed in range(3):
        assert line(tmp_path, "paper", 3)["speedup_verdict"] in ("missing", "partial (1 of 3)", "partial (2 of 3)")
        write_record(tmp_path, ROW, "paper", seed, **kept(0.95, 0.9, 0.85))
    found = line(tmp_path, "paper", 3)
    assert found["speedup_verdict"] == "not measured"
    assert found["time_note"].endswith(TIMED_OTHERWISE)
    assert claim(tmp_path, "paper", 3) == "not measured"
    # Timed again with the keep rates of the runs.
    time_it(tmp_path, ROW, 10.0)
    found = line(tmp_path, "paper", 3)
    assert found["speedup_verdict"] == "below"
    assert TIMED_OTHERWISE not in found["time_note"]
    assert "95, 90, 85 % of the patches left as measured" in found["time_note"]
    assert claim(tmp_path, "paper", 3) in ("holds", "does not hold")


def test_a_timing_beside_the_column_is_held_against_what_the_runs_kept_too(tmp_path: Path) -> None:
    """Either of two timings may be stale: the column's then loses its verdict, the other is only marked."""
    stale = "(with other keep rates than its runs have measured)"
    for seed in range(3):
        write_record(tmp_path, ROW, "paper", seed, **kept(0.95, 0.9, 0.85))
    time_it(tmp_path, ROW, 10.0)
    fresh = read_timing(tmp_path, "table3", ROW.id)
    assert fresh is not None
    for batch, macs_saving_pct in ((16, fresh.macs_saving_pct + 1.1), (64, fresh.macs_saving_pct + 0.9)):
        setting = replace(fresh.setting, batch=batch)
        write_timing(tmp_path, replace(fresh, setting=setting, macs_saving_pct=macs_saving_pct), is_extra_batch=True)
    found = line(tmp_path, "paper", 3)
    assert found["time_note"].endswith(f"; 10.0 % at batch 16 {stale}; 10.0 % at batch 64")
    assert found["speedup_verdict"] == "below"
    assert claim(tmp_path, "paper", 3) in ("holds", "does not hold")
    # The other way round: timed again at that batch size, but not at the column's.
    write_timing(tmp_path, replace(fresh, macs_saving_pct=fresh.macs_saving_pct + 1.1))
    write_timing(tmp_path, replace(fresh, setting=replace(fresh.setting, batch=16)), is_extra_batch=True)
    found = line(tmp_path, "paper", 3)
    assert found["time_note"].endswith(f"; 10.0 % at batch 16; 10.0 % at batch 64; {TIMED_OTHERWISE}")
    assert found["speedup_verdict"] == "not measured"
    # Keep rates of runs on other data say nothing about the published model.
    assert stale not in line(tmp_path, "local", 1)["time_note"]


def test_a_timing_takes_the_mean_over_seeds_and_the_spread_over_images(tmp_path: Path) -> None:
    planned = paper_config(ROW)
    for seed, rate in enumerate((0.5, 0.6, 0.7)):
        assert with_measured_keep_rates(planned, "table3", ROW.id, range(3), tmp_path) is planned
        rates = {**kept(rate, rate, rate), result_names(1)[1]: rate**2 * (1 + 0.3**2 / 3)}
        write_record(tmp_path, ROW, "paper", seed, **rates)
    found = with_measured_keep_rates(planned, "table3", ROW.id, range(3), tmp_path).method.tokens
    assert found is not None
    assert found.options["keep_rates"] == pytest.approx((0.6, 0.6, 0.6))
    assert 0 < found.options["keep_spread"] < 0.4
    (dense,) = TABLE.select(["deit_small/dense"])
    config = paper_config(dense)
    assert with_measured_keep_rates(config, "table3", dense.id, range(3), tmp_path) is config


@pytest.mark.parametrize(("device", "threads", "words"), [("CPU", 1, "not measured"), ("NVIDIA V100", 0, "")])
def test_images_a_second_of_a_cpu_are_not_measured_and_not_how_the_row_is_faster(
    tmp_path: Path, device: str, threads: int, words: str
) -> None:
    write_saving(tmp_path, ROW, 30.0, device=device, threads=threads)
    (found,) = collect_results(TABLE, [ROW], "local", [0], tmp_path).rows
    entry = compact_entry(found.cells["throughput_img_s"])
    assert (entry.text == "") if words else float(entry.text) > 0
    assert entry.published == "1360"

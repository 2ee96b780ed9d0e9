"""Claims about time: as certain as their turns allow, and each for the device that it was measured on."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import claim_of, write_saving

from repro.report.claim_verdicts import judge_claims
from repro.report.collect import collect_results
from repro.tables.loader import load_table
from repro.tables.rows import Table


@pytest.mark.parametrize(
    ("saving", "device", "threads", "verdict"),
    [
        (35.9, "a CPU", 2, "holds on CPU"),
        (35.9, "NVIDIA H100", 0, "holds"),
        (23.8, "NVIDIA H100", 0, "holds"),  # seven turns give 22.8 to 24.8: at least 24.8 - 2
        (23.0, "a CPU", 2, "undecided"),  # 22 to 24
        (10.0, "a CPU", 2, "does not hold on CPU"),
        (10.0, "NVIDIA H100", 0, "does not hold"),
    ],
)
def test_a_saving_is_kept_by_more_of_it_and_is_one_of_a_device(
    table: Table, tmp_path: Path, saving: float, device: str, threads: int, verdict: str
) -> None:
    (row,) = table.select(["deit_base/s2vite-40"])
    write_saving(tmp_path, row, saving, device=device, threads=threads)
    results = collect_results(table, [row], "local", [0], tmp_path)
    (found,) = (one for one in judge_claims(results) if one.claim.id == "s2vite_base_time")
    assert found.verdict == verdict
    on = "a CPU, 2 threads, batch 8, float32" if threads else "NVIDIA H100, batch 8, float32"
    assert f"median of 7 turns, 95 % interval {saving - 1:.1f} to {saving + 1:.1f}; {on}" in found.evidence[0]
    if verdict.endswith("CPU"):
        assert found.reason == f"{on}; the claim is about a GPU"
    if verdict == "undecided":  # the interval as in the evidence
        part = f"{saving - 1:.1f} to {saving + 1:.1f}"
        assert found.reason == f"deit_base/s2vite-40 Time saving (%): the claim holds in a part of {part} only"


@pytest.mark.parametrize(("turns", "verdict"), [(3, "undecided"), (5, "undecided"), (6, "holds"), (7, "holds")])
def test_few_turns_decide_no_claim(table: Table, tmp_path: Path, turns: int, verdict: str) -> None:
    """Six values contain the median with probability 1 - 2 / 2**6 = 96.9 %, five with 93.75 %."""
    (row,) = table.select(["deit_base/s2vite-40"])
    write_saving(tmp_path, row, 35.9, device="NVIDIA H100", threads=0, turns=turns)
    results = collect_results(table, [row], "local", [0], tmp_path)
    (found,) = (one for one in judge_claims(results) if one.claim.id == "s2vite_base_time")
    assert found.verdict == verdict
    assert ("too few turns" in found.reason) is (verdict == "undecided")
    assert (f"median of {turns} turns, too few for a 95 % interval" in found.evidence[0]) is (verdict == "undecided")


def test_a_claim_about_one_card_names_any_other(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_base/s2vite-40"])
    write_saving(tmp_path, row, 30.0, device="NVIDIA H100", threads=0)
    claim = claim_of("{cell: [deit_base/s2vite-40, time_saving_pct], more_than: 20}", device="V100")
    (found,) = judge_claims(collect_results(table, [row], "local", [0], tmp_path), [claim])
    assert found.verdict == "holds on NVIDIA H100"


def test_times_as_fast_have_an_interval_of_their_own(tmp_path: Path) -> None:
    table = load_table("table3")
    (row,) = table.select(["deit_small/dense"])
    write_saving(tmp_path, row, 50.0, device="NVIDIA V100", threads=0)  # 49 to 51 %: 1.961 to 2.041 times
    results = collect_results(table, [row], "local", [0], tmp_path)
    for bound, verdict in ((1.95, "holds"), (2.0, "undecided"), (2.05, "does not hold")):
        claim = claim_of(f"{{cell: [{row.id}, speedup], at_least: {bound}}}", "table3", device="V100")
        (found,) = judge_claims(results, [claim])
        assert found.verdict == verdict
    assert "2.00 (median of 7 turns, 95 % interval 1.96 to 2.04; NVIDIA V100, batch 8, float32)" in found.evidence[0]


def test_a_tolerance_in_percent_of_the_bound(tmp_path: Path) -> None:
    table = load_table("table3")
    (row,) = table.select(["deit_small/dense"])
    write_saving(tmp_path, row, 50.0, device="NVIDIA V100", threads=0)
    results = collect_results(table, [row], "local", [0], tmp_path)
    for percent, verdict in ((2.0, "holds"), (1.9, "undecided"), (0.0, "undecided")):  # 2.0 minus 2 % is 1.96
        claim = claim_of(f"{{cell: [{row.id}, speedup], at_least: 2.0}}", "table3", device="V100", percent=percent)
        (found,) = judge_claims(results, [claim])
        assert found.verdict == verdict, percent
    assert claim.tolerance_text == "tolerance 0 % (r)"

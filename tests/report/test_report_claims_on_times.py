"""Claims on time: as sure as their turns make them, and each of the device that it was measured on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_records import claim_of, write_saving

from repro.report.claims import judge_claims
from repro.report.collect import collect
from repro.rows import Metric, Table


@pytest.mark.parametrize(
    ("saving", "device", "threads", "verdict"),
    [
        (35.9, "a CPU", 2, "holds on CPU"),
        (35.9, "NVIDIA H100", 0, "holds"),
        (23.8, "NVIDIA H100", 0, "holds"),  # 22.8 to 24.8 by the seven turns: at least 24.8 - 2
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
    frame = collect(table, [row], "local", [0], tmp_path)
    (found,) = (one for one in judge_claims(frame, table) if one.claim.id == "s2vite_base_time")
    assert found.verdict == verdict
    on = "a CPU, 2 threads, batch 8, float32" if threads else "NVIDIA H100, batch 8, float32"
    assert f"median of 7 turns, 95 % interval {saving - 1:.1f} to {saving + 1:.1f}; {on}" in found.evidence[0]
    if verdict.endswith("CPU"):
        assert found.reason == f"{on}; the claim is one of a GPU"


@pytest.mark.parametrize(("turns", "verdict"), [(3, "undecided"), (5, "undecided"), (6, "holds"), (7, "holds")])
def test_few_turns_decide_no_claim(table: Table, tmp_path: Path, turns: int, verdict: str) -> None:
    """Six values hold the median with 1 - 2 / 2**6 = 96.9 %, five with 93.75 %."""
    (row,) = table.select(["deit_base/s2vite-40"])
    write_saving(tmp_path, row, 35.9, device="NVIDIA H100", threads=0, turns=turns)
    frame = collect(table, [row], "local", [0], tmp_path)
    (found,) = (one for one in judge_claims(frame, table) if one.claim.id == "s2vite_base_time")
    assert found.verdict == verdict
    assert ("too few turns" in found.reason) is (verdict == "undecided")
    assert (f"median of {turns} turns, too few for a 95 % interval" in found.evidence[0]) is (verdict == "undecided")


def test_a_claim_of_one_card_names_any_other(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_base/s2vite-40"])
    write_saving(tmp_path, row, 30.0, device="NVIDIA H100", threads=0)
    claim = replace(claim_of("measured('deit_base/s2vite-40', 'time_saving_pct') > 20"), device="V100")
    (found, *_) = judge_claims(collect(table, [row], "local", [0], tmp_path), table, [claim])
    assert found.verdict == "holds on NVIDIA H100"


def test_times_as_fast_are_as_sure_as_the_saving(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_base/s2vite-40"])
    write_saving(tmp_path, row, 50.0, device="NVIDIA V100", threads=0)  # 49 to 51 %: 1.961 to 2.041 times
    frame = collect(table, [row], "local", [0], tmp_path).assign(speedup=2.0)
    wider = replace(table, metrics={**table.metrics, "speedup": Metric("speedup", "Speed-up", 0.1, "device", "r")})
    for bound, verdict in ((1.95, "holds"), (2.0, "undecided"), (2.05, "does not hold")):
        claim = replace(claim_of(f"measured('{row.id}', 'speedup') >= {bound}"), device="V100")
        (found, *_) = judge_claims(frame, wider, [claim])
        assert found.verdict == verdict
    assert "2.00 (median of 7 turns, 95 % interval 1.96 to 2.04; NVIDIA V100, batch 8, float32)" in found.evidence[0]

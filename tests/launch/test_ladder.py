"""`repro plan --ladder`: what each rung of evidence would cost for the chosen rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_records import write_record

from repro.cli.main import main
from repro.launch.cost_estimate import known_throughput
from repro.launch.ladder import Rung, ladder
from repro.tables.loader import load_table


def rungs(name: str, *patterns: str, root: Path, seeds: int | None = None) -> dict[str, Rung]:
    found = ladder(load_table(name), patterns, seeds, root, known_throughput)
    assert [rung.name for rung in found] == ["counted", "local", "mini", "weights", "paper"]
    return {rung.name: rung for rung in found}


def test_each_rung_of_a_row_by_hand(tmp_path: Path) -> None:
    """DeiT-Small: 50,000 x 100 images at 65 tokens, and 600 epochs of ImageNet at a third of 940 images/s."""
    found = rungs("table1", "deit_small/svite-50", root=tmp_path)
    assert found["counted"] == Rung("counted", 1, 1)
    images, macs = 390 * 128 * 100, 1_430_857_728
    assert found["mini"].device_hours == pytest.approx(3 * images * 6 * macs / 62.4e12 / 3600, rel=0.02)
    assert found["weights"].device_hours == pytest.approx(50_000 * 2 * 4.5989e9 / 62.4e12 / 3600, rel=1e-3)
    assert found["paper"].device_hours == pytest.approx(3 * 600 * 1_281_167 / (940 / 3) / 3600, rel=1e-3)
    assert (found["paper"].runs, found["paper"].unknown) == (3, 0)
    assert (found["local"].device_hours, found["local"].unknown) == (None, found["local"].runs)


def test_finished_runs_cost_nothing_and_tell_what_others_cost(tmp_path: Path) -> None:
    (row,) = load_table("table1").select(["deit_tiny/dense"])
    write_record(tmp_path, row, "local", 0, wall_s=36.0)
    found = rungs("table1", row.id, root=tmp_path, seeds=3)["local"]
    assert (found.runs, found.done, found.unknown) == (3, 1, 0)
    assert found.device_hours == pytest.approx(0.02, rel=0.01)
    assert found.known_from == ("1 finished run of deit_tiny dense here (cpu)",)


def test_rows_that_are_not_run_at_a_scale_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rungs("table3", "timesformer/*", root=tmp_path)
    assert (found["mini"].runs, found["weights"].runs, found["paper"].runs) == (0, 2, 6)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "table3", "timesformer/*", "--ladder", "--runs", str(tmp_path)])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["counted", "local", "mini", "weights", "paper"]
    assert lines[3].rstrip().endswith("none of these rows is run at this scale")


def test_the_ladder_is_of_every_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "table1", "--ladder", "recipe.epochs=3"])
    assert "leave it out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "table1", "deit_tiny/dense", "--ladder", "--json", "--runs", str(tmp_path)])
    entries = json.loads(capsys.readouterr().out)
    assert [entry["runs"] for entry in entries][2:] == [3, 1, 3]

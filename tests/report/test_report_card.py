"""The reproducibility card: nine variables from provenance; facts that no record has are shown as missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_records import write_record

from repro.cli.main import main
from repro.files import write_json
from repro.report.card import Card, card_of, markdown_card, remembered_affiliation, write_card
from repro.report.collect import collect_results
from repro.tables.rows import Row, Table

NINE = [
    *("Research type", "Affiliation", "Pseudocode", "Code", "Data", "Splits"),
    *("Hardware", "Software versions", "Experiment set-up"),
]
PROVENANCE = {
    "commit": "c" * 40,
    "dirty_diff_sha256": "d",
    "cpu": "A | CPU <b>",
    "cpu_count": 8,
    "gpu": [{"name": "A GPU", "memory_gib": 80.0, "driver": "1.2"}],
    "os": "an OS",
    "python": "3.11",
    "versions": {"torch": "2.8", "timm": None},
    "data_fingerprint": "f00d",
}


def filled_of(table: Table, row: Row, root: Path, affiliation: str = "") -> Card:
    filled = card_of(collect_results(table, [row], "local", [0], root), affiliation)
    assert filled is not None
    return filled


def test_nine_variables_from_provenance(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_tiny/svite-30"])
    record = write_record(tmp_path, row, "local", 0)
    write_json(record.path / "provenance.json", PROVENANCE)
    filled = card_of(collect_results(table, [row], "local", [0, 1], tmp_path))
    assert filled is not None
    facts = {variable.name: variable.facts for variable in filled.variables}
    assert list(facts) == NINE
    assert (filled.stated, facts["Affiliation"], facts["Pseudocode"]) == (7, (), ())
    assert facts["Hardware"] == ("A | CPU <b>, 8 cores; A GPU (80 GiB, driver 1.2)",)
    assert facts["Software versions"] == ("Python 3.11, torch 2.8, an OS",)
    assert facts["Code"] == (f"commit {'c' * 40}: 1 run, 1 of them with uncommitted changes",)
    assert facts["Data"] == ("digits, fingerprint f00d",)
    assert facts["Splits"] == (
        "digits: 1,437 training images, the whole test split; the same for every seed",
        "digits: no validation split; the best epoch, whose accuracy the verdicts use, is chosen on the test images, "
        "as in the released code; the last epoch's accuracy is in the CSV",
    )
    (reason,) = (variable.why_not for variable in filled.variables if variable.name == "Pseudocode")
    assert reason.startswith("see the code: repro/methods/weights/svite.py (SViTE"), "code is no pseudocode"
    assert "6 epochs, batch 16" in facts["Experiment set-up"][1]
    text = markdown_card(filled)
    assert "<b>" not in text
    assert "| Affiliation | no | not stated: records do not have it; set it once with repro card TABLE" in text
    folder = tmp_path / "reports" / "local"
    paths = write_card(filled_of(table, row, tmp_path, "a lab"), folder)
    read = json.loads(paths[1].read_text(encoding="utf-8"))
    assert read["stated"] == 8
    assert remembered_affiliation(tmp_path / "reports") == "a lab"
    assert remembered_affiliation(tmp_path) == ""
    assert [variable["name"] for variable in read["variables"]] == NINE


def test_provenance_that_says_little_is_not_filled_in(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_tiny/dense"])
    record = write_record(tmp_path, row, "local", 0)
    write_json(record.path / "provenance.json", {})
    filled = filled_of(table, row, tmp_path)
    missing = {variable.name for variable in filled.variables if not variable.is_stated}
    assert missing == {"Affiliation", "Pseudocode", "Code", "Hardware", "Software versions"}
    assert all(variable.why_not for variable in filled.variables if not variable.is_stated)


def test_the_setup_has_only_overrides_that_can_change_a_result(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_tiny/dense"])
    write_record(tmp_path, row, "local", 0, overrides=["recipe.epochs=3"])
    overrides = ["launcher=inline", "data.root=/home/me/images", "recipe.epochs=3"]
    filled = card_of(collect_results(table, [row], "local", [0], tmp_path, overrides))
    assert filled is not None
    facts = {variable.name: variable.facts for variable in filled.variables}
    assert facts["Experiment set-up"][0] == "scale local, seeds 0, overrides recipe.epochs=3"


def test_a_card_needs_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["card", "table1", "deit_tiny/dense", "--runs", str(tmp_path), "--reports", str(tmp_path)])
    assert ended.value.code == 2
    assert f"table1 at scale local: no finished run below {tmp_path}; first: " in capsys.readouterr().err

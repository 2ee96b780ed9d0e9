"""The reproducibility card: nine variables from provenance, and what no record says is said to be missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_records import write_record

from repro.errors import UserError
from repro.report.card import card, markdown_card, remembered_affiliation, write_card
from repro.rows import Table
from repro.runs.files import write_json

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


def test_nine_variables_from_provenance(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_tiny/svite-30"])
    record = write_record(tmp_path, row, "local", 0)
    write_json(record.path / "provenance.json", PROVENANCE)
    filled = card(table, [row], "local", [0, 1], tmp_path)
    facts = {variable.name: variable.facts for variable in filled.variables}
    assert list(facts) == NINE
    assert (filled.stated, facts["Affiliation"], facts["Pseudocode"]) == (7, (), ())
    assert facts["Hardware"] == ("A | CPU <b>, 8 cores; A GPU (80 GiB, driver 1.2)",)
    assert facts["Software versions"] == ("Python 3.11, torch 2.8, an OS",)
    assert facts["Code"] == (f"commit {'c' * 40}: 1 runs, 1 of them with uncommitted changes",)
    assert facts["Data"] == ("digits, fingerprint f00d",)
    assert facts["Splits"] == (
        "digits: 1,437 training images, the whole test split; the same for every seed: no split depends on it",
        "digits: no validation split; the best epoch, whose accuracy the verdicts use, is chosen on the test images, "
        "as the released code reports it; the last epoch's, which nothing chooses, is in the CSV",
    )
    (reason,) = (variable.why_not for variable in filled.variables if variable.name == "Pseudocode")
    assert reason.startswith("the code itself is to be read: repro/sparsity/svite.py (SViTE"), "code is no pseudocode"
    assert "12 epochs, batch 64" in facts["Experiment set-up"][1]
    text = markdown_card(filled)
    assert "<b>" not in text
    assert "| Affiliation | no | not stated: no record knows who ran it; repro card TABLE" in text
    paths = write_card(card(table, [row], "local", [0], tmp_path, affiliation="a lab"), tmp_path / "reports")
    read = json.loads(paths[1].read_text(encoding="utf-8"))
    assert read["stated"] == 8
    assert remembered_affiliation(tmp_path / "reports") == "a lab"
    assert remembered_affiliation(tmp_path) == ""
    assert [variable["name"] for variable in read["variables"]] == NINE


def test_provenance_that_says_little_is_not_filled_in(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_tiny/dense"])
    record = write_record(tmp_path, row, "local", 0)
    write_json(record.path / "provenance.json", {})
    filled = card(table, [row], "local", [0], tmp_path)
    missing = {variable.name for variable in filled.variables if not variable.is_stated}
    assert missing == {"Affiliation", "Pseudocode", "Code", "Hardware", "Software versions"}
    assert all(variable.why_not for variable in filled.variables if not variable.is_stated)


def test_a_card_needs_a_finished_run(table: Table, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run at scale local"):
        card(table, table.rows[:1], "local", [0], tmp_path)

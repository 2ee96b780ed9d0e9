"""Findings: shown with evidence, doubt and measurements of runs, in every report of their table."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import write_record

from repro.errors import UserError
from repro.report.build import view_of
from repro.report.findings import load_findings
from repro.tables.loader import load_table, table_names
from repro.tables.rows import Table

ROW, FIRST = "deit_small/svite_plus-5-50", "deit_small/svite_plus-5-50-masks_as_released"


def test_a_finding_is_shown_with_what_runs_have_measured(table: Table, tmp_path: Path) -> None:
    rows = {row.id: row for row in table.every_row}
    for seed, points in enumerate((1.0, 1.5, 2.0)):
        write_record(tmp_path, rows[ROW], "local", seed, top1_best_pct=90.0)
        write_record(tmp_path, rows[FIRST], "local", seed, top1_best_pct=90.0 + points)
    seen = view_of(table, table.select(["deit_tiny/*"]), "local", range(3), tmp_path)
    assert FIRST not in {row.row.id for row in seen.results.rows}
    (note,) = [note for note in seen.notes if note.title.startswith("Finding: Published SViTE+")]
    text = "\n".join(note.items)
    assert "98.9 % of the parameters of the dense model" in text
    assert sum(item.startswith("evidence: ") for item in note.items) == 3
    assert sum(item.startswith("doubt: ") for item in note.items) == 1
    assert (
        f"{FIRST} over {ROW}, local scale: top-1 +1.50 points over 3 seeds (95 % interval -2.79 to +5.81) "
        "(21.82 M and 11.09 M parameters, of the published backbone)"
    ) in note.items
    assert "first_code over deit_small/svite_plus-5-50, local scale: no finished runs with the same seed" in text
    paper = view_of(table, table.select(["deit_tiny/*"]), "paper", [0], tmp_path)
    (note,) = [note for note in paper.notes if note.title.startswith("Finding")]
    assert f"{FIRST} over {ROW}, paper scale: {FIRST} not run at this scale" in note.items


def test_every_finding_names_rows_of_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {finding.id for name in table_names() for finding in load_findings(load_table(name))} == {"svite_plus_masks"}
    folder = tmp_path / "paper_tables" / "table2"
    folder.mkdir(parents=True)
    text = (
        "findings: [{id: a, title: t, finding: f, evidence: [e], doubt: d, compare: [[resnet50/dense, resnet50/dens]]}]"
    )
    (folder / "findings.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("REPRO_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"findings.yaml: a: compare: no row 'resnet50/dens'; nearest: resnet50/dense"):
        load_findings(load_table("table2"))

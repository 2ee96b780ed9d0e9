"""Figures that only `make figures` draws are told of wherever a reader looks for them, until they are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import write_record

from repro.cli import main
from repro.paper_tables import load_table
from repro.report.build import build
from repro.report.collect import gather
from repro.report.extracts import awaited
from repro.rows import Table
from repro.runs.files import write_json
from repro.runs.record import ANATOMY_SCHEMA

ALL = "Not drawn yet: heads left, patches kept, heat maps over images. make figures TABLE=table1"


def said(table: Table, pattern: str, scale: str, root: Path) -> str:
    _, every = gather(table, table.select([pattern]), scale, [0], root)
    return awaited(table, every, scale)


def test_what_is_missing_goes_as_it_comes(table: Table, tmp_path: Path) -> None:
    assert said(table, "deit_small/*", "local", tmp_path) == "", "nothing is finished: there is nothing to take it from"
    (row,) = table.select(["deit_small/s2vite-40"])
    for scale, where in (("local", "TABLE=table1"), ("smoke", "TABLE=table1 SCALE=smoke")):
        record = write_record(tmp_path, row, scale, 0)
        assert said(table, "deit_small/*", scale, tmp_path) == (
            "Not drawn yet: heads left, patches kept, heat maps over images. "
            f"make figures {where} takes them from the finished models."
        )
        write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": [[True]]})
        assert said(table, "deit_small/*", scale, tmp_path).startswith("Not drawn yet: heat maps over images. ")
        write_json(record.path / "interpretation.json", {"stages": []})
        assert said(table, "deit_small/*", scale, tmp_path) == ""


def test_a_model_without_tokens_has_no_heat_maps_to_wait_for(tmp_path: Path) -> None:
    spartan = load_table("table2")
    (row,) = spartan.select(["resnet50/dense"])
    record = write_record(tmp_path, row, "local", 0)
    write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": []})
    assert said(spartan, "resnet50/*", "local", tmp_path) == ""


def test_the_terminal_and_the_page_say_so(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (row,) = table.select(["deit_small/s2vite-40"])
    record = write_record(tmp_path / "runs", row, "local", 0)
    with pytest.raises(SystemExit) as ended:
        main(["report", "table1", "deit_small/s2vite-40"])
    assert ended.value.code == 0
    assert ALL in capsys.readouterr().out
    assert ALL in (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    # Once they are there the page shows them, and nothing is said.
    write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": [[True, False]] * 2})
    write_json(record.path / "interpretation.json", {"stages": []})
    monkeypatch.setattr("repro.report.more_figures.draw_interpretation", lambda *_: None)
    report = build(table, [row], "local", [0], tmp_path / "runs", tmp_path / "reports")
    assert report.awaited == ""
    page = (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert "Not drawn yet" not in page
    assert 'alt="Heads left in each layer"' in page

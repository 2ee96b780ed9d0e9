"""Every output mentions figures that need `make figures`, until they exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import frame_and_evidence, write_record

from repro.cli.main import main
from repro.files import write_json
from repro.report.build import build
from repro.report.figures.pending import extracts, pending_figures
from repro.runs.record import Record
from repro.runs.schemas import ANATOMY_SCHEMA
from repro.tables.loader import load_table
from repro.tables.rows import Table

ALL = "Not drawn yet: heads left, patches kept, heat maps over images. make figures TABLE=table1 SCALE=local"
INTERPRETED = {"schema": 1, "data": "digits", "images": 8, "images_with_mask": 0, "maps": {}, "stages": []}


def said(table: Table, pattern: str, scale: str, root: Path) -> str:
    _, every = frame_and_evidence(table, table.select([pattern]), scale, [0], root)
    return pending_figures(table, every, scale)


def test_what_is_missing_goes_as_it_comes(table: Table, tmp_path: Path) -> None:
    assert said(table, "deit_small/*", "local", tmp_path) == "", "nothing is finished: there is nothing to take it from"
    (row,) = table.select(["deit_small/s2vite-40"])
    for scale in ("local", "smoke"):
        record = write_record(tmp_path, row, scale, 0)
        assert said(table, "deit_small/*", scale, tmp_path) == (
            "Not drawn yet: heads left, patches kept, heat maps over images. "
            f"make figures TABLE=table1 SCALE={scale} extracts them from the finished models."
        )
        write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": [[True]]})
        assert said(table, "deit_small/*", scale, tmp_path).startswith("Not drawn yet: heat maps over images. ")
        write_json(record.path / "interpretation.json", INTERPRETED)
        assert said(table, "deit_small/*", scale, tmp_path) == ""


def test_what_any_finished_seed_has_is_not_missing(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_small/s2vite-40"])
    records = [write_record(tmp_path, row, "local", seed) for seed in (0, 1)]
    write_json(records[1].path / "interpretation.json", INTERPRETED)
    _, every = frame_and_evidence(table, [row], "local", [0, 1], tmp_path)
    assert pending_figures(table, every, "local").startswith("Not drawn yet: heads left, patches kept. ")
    assert [record for _, record, _ in extracts(every, Record.interpretation)] == [records[1]]
    write_json(records[1].path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": [[True]]})
    assert pending_figures(table, every, "local") == ""


def test_a_model_without_tokens_has_no_heat_maps_to_wait_for(tmp_path: Path) -> None:
    spartan = load_table("table2")
    (row,) = spartan.select(["resnet50/dense"])
    record = write_record(tmp_path, row, "local", 0)
    write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": []})
    assert said(spartan, "resnet50/*", "local", tmp_path) == ""


def _nothing(*_: object) -> None:
    """Draw nothing. Defined at module level, because other processes call it."""


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
    # Once they exist, the page shows them and does not mention `make figures`.
    write_json(record.path / "anatomy.json", {"schema": ANATOMY_SCHEMA, "heads": [[True, False]] * 2})
    write_json(record.path / "interpretation.json", INTERPRETED)
    monkeypatch.setattr("repro.report.figures.drawings.draw_interpretation", _nothing)
    report = build(table, [row], "local", [0], tmp_path / "runs", tmp_path / "reports")
    assert report.pending == ""
    page = (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert "Not drawn yet" not in page
    assert 'alt="Heads left in each block, one seed; heads and blocks are counted from 0."' in page

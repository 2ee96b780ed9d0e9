"""Reports of different scales, or of fewer runs, do not overwrite each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_records import write_record

from repro.cli.main import main
from repro.report.build import build
from repro.tables.loader import load_table

TABLE = load_table("table1")
ROWS = TABLE.select(["deit_tiny/dense", "deit_tiny/svite-30"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def two_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows with two finished runs each, and their report; tests work on copies."""
    folder = tmp_path_factory.mktemp("two rows")
    for row in ROWS:
        for seed in (0, 1):
            write_record(folder / "runs", row, "local", seed)
    build(TABLE, ROWS, "local", [0, 1], folder / "runs", folder / "reports")
    return folder


def test_a_smoke_report_leaves_a_local_one_alone(two_rows: Path, tmp_path: Path) -> None:
    shutil.copytree(two_rows, tmp_path, dirs_exist_ok=True)
    reports = tmp_path / "reports"
    local = reports / "table1/local"
    before = contents(local)
    smoke = build(TABLE, ROWS, "smoke", [0], tmp_path / "runs", reports)
    assert smoke.folder != local
    assert before
    assert contents(local) == before
    page = (reports / "index.html").read_text(encoding="utf-8")
    assert page.index('id="table1-local"') < page.index('id="table1-smoke"')
    assert 'href="#table1-smoke"' in page


@pytest.mark.parametrize(
    ("rows", "seeds", "is_replaced"),
    [
        (ROWS, [0, 1], True),  # equally many rows and finished runs
        (ROWS[:1], [0, 1], False),
        (ROWS, [0], False),
        (TABLE.select(["deit_tiny/*"]), [0, 1], True),
    ],
)
def test_a_report_with_less_does_not_replace_a_fuller_one(
    two_rows: Path, tmp_path: Path, rows: tuple, seeds: list[int], is_replaced: bool
) -> None:
    shutil.copytree(two_rows, tmp_path, dirs_exist_ok=True)
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    before = contents(reports)
    second = build(TABLE, rows, "local", seeds, runs, reports)
    assert bool(second.paths) is is_replaced
    assert (second.kept == "") is is_replaced
    if not is_replaced:
        assert contents(reports) == before
        assert second.kept.startswith(f"{second.folder} is left as it is: its report has 2 rows and 4 finished runs")
        forced = build(TABLE, rows, "local", seeds, runs, reports, is_forced=True)
        assert forced.paths
        summary = json.loads((forced.folder / "summary.json").read_text())
        assert summary["row_ids"] == [row.id for row in rows]


def test_a_selection_still_prints_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path / "runs", ROWS[0], "local", 0)
    where = ["--runs", str(tmp_path / "runs"), "--reports", str(tmp_path / "reports")]
    for words in (["deit_tiny/*"], ["deit_tiny/dense"], ["deit_tiny/dense", "--force"]):
        with pytest.raises(SystemExit) as ended:
            main(["report", "table1", *words, *where])
        assert ended.value.code == 0
        out = capsys.readouterr().out.splitlines()
        assert any(line.startswith(" dense") for line in out)
        assert ("--force replaces it" in out[-2]) is (words == ["deit_tiny/dense"])
        assert out[-1].startswith("Page: open file:///")

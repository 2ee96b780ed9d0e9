"""The ladder of evidence, and third-party weights: shown next to the measurements of runs, never in place of them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from report_records import collect, view_of_results, write_record
from rich.console import Console

from repro.errors import UserError
from repro.report.collect import collect_results
from repro.report.tables import html_text, latex_text, markdown_text
from repro.report.terminal import print_view
from repro.runs.adopted import AdoptedWeights, RowCheck, WeightsFile, adopted_folder, write_adopted
from repro.tables.rows import Row, Table

WHOLE = {"name": "imagenet", "images": 50_000, "of": 50_000, "is_imagenet_validation": True}


def write_weights(
    root: Path, row: Row, *top1_pct: float, name: str = "a", images: int = 50_000, scale: str = "paper"
) -> None:
    sha256 = name.encode().hex().ljust(64, "0")
    data = {**WHOLE, "images": images, "is_imagenet_validation": images == 50_000}
    file = WeightsFile(f"{name}.pth", sha256, "<b>a friend & a disk</b>", "model", epoch=599)
    checks = (RowCheck("zeros in all layers", "0.00 %", "0.00 %", "0.5 points"),)
    adopted = AdoptedWeights(row.table, row.id, scale, file, checks, data, top1_pct, notes=("last epoch's",))
    write_adopted(adopted_folder(root, row.table, row.id, sha256), adopted)


def rungs(table: Table, root: Path, scale: str, ids: list[str]) -> list[str]:
    frame = collect(table, table.select(ids, scale), scale, [0], root)
    return list(frame["highest_evidence"])


def test_a_row_has_the_highest_rung_of_all_scales(table: Table, tmp_path: Path) -> None:
    rows = {row.id: row for row in table.rows}
    ids = ["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/svite-40", "deit_tiny/s2vite-30", "deit_tiny/ssp-30"]
    tiny, svite30, svite40, s2vite, ssp = (rows[id_] for id_ in ids)
    assert rungs(table, tmp_path, "local", ids) == ["counted"] * 5
    without_runs = view_of_results(collect_results(table, table.select(ids), "local", [0], tmp_path)).summary
    assert without_runs.ladder_line.endswith("(counted, local, mini, weights, paper): 5 counted.")
    write_record(tmp_path, tiny, "local", 3)
    write_record(tmp_path, svite30, "local", 0)
    write_weights(tmp_path, svite30, 71.8)
    write_record(tmp_path, svite40, "paper", 0)
    write_weights(tmp_path, svite40, 71.8)
    write_record(tmp_path, s2vite, "local", 0, overrides=["recipe.epochs=3"])  # overrides: not the row's own training
    write_record(tmp_path, ssp, "smoke", 0)  # no rung
    write_weights(tmp_path, ssp, 68.6, images=100)  # not the data set of the published value
    expected = ["local", "weights", "paper", "counted", "counted"]
    for scale in ("local", "paper", "smoke"):
        assert rungs(table, tmp_path, scale, ids) == expected
    with_overrides = collect(table, [s2vite], "local", [0], tmp_path, ["recipe.epochs=3"])
    assert list(with_overrides["highest_evidence"]) == ["local"]
    summary = view_of_results(collect_results(table, list(rows.values()), "paper", [0], tmp_path)).summary
    assert dict(summary.ladder) == {"counted": len(rows) - 3, "local": 1, "weights": 1, "paper": 1}
    assert summary.ladder_line in summary.lines


def test_weights_of_others_have_verdicts_of_their_own(table: Table, tmp_path: Path) -> None:
    rows = {row.id: row for row in table.rows}
    write_weights(tmp_path, rows["deit_tiny/dense"], 72.0, 72.2)  # mean 72.1, published 72.2
    write_weights(tmp_path, rows["deit_tiny/svite-30"], 70.0)  # published 71.78
    write_weights(tmp_path, rows["deit_tiny/svite-40"], 71.7, images=1_000)
    write_weights(tmp_path, rows["deit_tiny/omp-30"], 60.0)  # no published value
    results = collect_results(table, table.select(["deit_tiny/*"]), "local", [0], tmp_path)
    seen = view_of_results(results)
    cells = {row.row.id: row.cells["top1_pct"] for row in results.rows}
    assert {cell.verdict for cell in cells.values() if cell.published} == {"missing"}
    assert seen.summary.as_json()["evidence"]["weights of others"] == {
        "published": 3, "holds": 1, "does_not_hold": 1, "undecided": {"other data": 1}
    }  # fmt: skip
    line = "Weights of others: 1 of 3 published values holds, 1 does not (1 other data)."
    assert line in seen.summary.lines
    assert "deit_tiny/dense" not in {cell.row.id for cell in seen.summary.contradicted}
    terminal = io.StringIO()
    print_view(seen, Console(file=terminal, width=200))
    assert "72.10 ✓" in terminal.getvalue()
    wide = io.StringIO()
    print_view(seen, Console(file=wide, width=100), is_wide=True)
    legends = [" ".join(one.getvalue().split()) for one in (terminal, wide)]
    legends += [markdown_text(seen), markdown_text(seen, is_wide=True)]
    for text in legends:
        assert re.search(r"○ [a-z ,]*other data", text)
    assert re.search(r"○</span> [a-z ,]*other data", html_text(seen))
    assert re.search(r"\\circ} [a-z ,]*other data", latex_text(seen))
    for text in (markdown_text(seen), html_text(seen)):
        assert "72.10 ✓" in text
        assert "Top-1 of weights that others have trained" in text
    assert "&lt;b&gt;a friend &amp; a disk&lt;/b&gt;" in html_text(seen)
    assert r"\textless{}b\textgreater{}a friend \& a disk" in latex_text(seen)
    note = next(note for note in seen.notes if note.title.startswith("Weights that others"))
    assert note.items[0].startswith(
        "deit_tiny/dense: 72.10 % on all 50,000 test images of ImageNet (reproduced, published 72.2)"
    )
    assert "last epoch's" in note.items[0]


def test_a_damaged_record_is_named(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_tiny/dense"])
    write_weights(tmp_path, row, 172.0)
    with pytest.raises(UserError, match=r"adopted\.json: .*less than or equal to 100.*adopt the file again"):
        collect(table, [row], "local", [0], tmp_path)

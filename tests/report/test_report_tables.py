"""The table writers, compared with golden files.

`REPRO_UPDATE_GOLDEN=1 pytest tests/report/test_report_tables.py` updates the golden files; review the diff before you
commit it. They do not depend on the machine: the commit in the records is made up, and no times are shown.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import needs
from report_records import view_of_results, write_record, write_saving

from repro.cli.main import main
from repro.report import escaping
from repro.report.build import build
from repro.report.claim_verdicts import judge_claims
from repro.report.collect import collect_results
from repro.report.fitting import columns_that_fit
from repro.report.format import KIND_MARKS, published_number, source_url
from repro.report.grid import Column, Entry
from repro.report.measures import MEASURES
from repro.report.tables import csv_text, html_text, latex_text, markdown_text, write_tables
from repro.report.view import View
from repro.tables.loader import load_table, table_names
from repro.tables.rows import Metric, PublishedValue, Source, Table

GOLDEN = Path(__file__).resolve().parent / "golden"
NASTY = r"""<script>alert("x")</script> & | ` * _ ~ ^ # % $ \ { } [a](b) -- 'q' é 漢 ±"""


def hold_to_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("REPRO_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{name} differs; see this module's docstring"


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_golden_files(views: dict[str, View], scale: str) -> None:
    seen = views[scale]
    hold_to_golden(f"{scale}.csv", csv_text(seen.results))
    hold_to_golden(f"{scale}.md", markdown_text(seen))
    hold_to_golden(f"{scale}-wide.md", markdown_text(seen, is_wide=True))
    hold_to_golden(f"{scale}.tex", latex_text(seen))
    hold_to_golden(f"{scale}.html", html_text(seen))
    hold_to_golden(f"{scale}.json", json.dumps(seen.summary.as_json(), indent=2) + "\n")


def entries(seen: View, row: str, *, is_wide: bool = False) -> dict[str, Entry]:
    """Return the rendered cells of a row by column title."""
    (grid,) = seen.wide if is_wide else seen.compact
    (found,) = (cells for _, lines in grid.lines for other, cells in lines if other.id == row)
    return dict(zip([column.title for column in grid.columns], found, strict=True))


def test_a_compact_cell_has_measured_published_and_verdict(views: dict[str, View]) -> None:
    found = entries(views["paper"], "deit_base/s2vite-40")
    cell = found["FLOPs saving (%)"]
    assert (cell.text, cell.published, cell.verdict, cell.symbol, cell.tone) == (
        "33.35", "33.1", "reproduced", "✓", "good",
    )  # fmt: skip
    assert cell.tooltip == (
        "deit_base/s2vite-40, FLOPs saving (%); counted 33.35; published 33.1 ± 0.05 (cited, savit: table convention: "
        "attention matmuls of removed heads not credited); delta +0.25 points, tolerance 0.35; reproduced"
    )
    waiting = found["Top-1, best epoch (%)"]
    assert (waiting.text, waiting.published, waiting.symbol) == ("", "82.22", "○")
    assert waiting.tooltip.endswith("missing (deit_base/s2vite-40: missing)")
    small = entries(views["paper"], "deit_small/svite-30")["Top-1, best epoch (%)"]
    assert (small.text, small.published, small.verdict, small.symbol) == ("81.20 ± 0.10", "80.48", "above", "▲")
    assert small.published_mark == KIND_MARKS["digitised"]


def test_the_one_contradicted_count_is_in_the_table_and_first_in_the_summary(views: dict[str, View]) -> None:
    seen = views["local"]
    macs = entries(seen, "deit_small/s2vite_plus-10-40")["MACs (G)"]
    assert (macs.text, macs.published, macs.verdict, macs.tone) == ("2.79", "2.7", "above", "off")
    assert seen.summary.lines[0] == (
        "Does not hold: deit_small/s2vite_plus-10-40, MACs (G): counted 2.79, published 2.7."
    )
    assert seen.summary.lines[1] == "Counted: 53 of 54 published values hold, 1 does not."


def test_the_wide_view_has_a_column_for_each_part_with_its_unit(views: dict[str, View]) -> None:
    for scale, with_accuracy in (("local", False), ("paper", True)):
        line = entries(views[scale], "deit_base/s2vite-40", is_wide=True)
        assert ("Top-1, best epoch (%) delta (points)" in line) is with_accuracy
        heads = ("counted", "published", "delta (points)", "verdict")
        shown = [line[f"FLOPs saving (%) {head}"].text for head in heads]
        assert shown == ["33.35", "33.1", "+0.25", "reproduced"]
        assert line["Params (M) delta (M)"].text == "+0.01"
        assert entries(views[scale], "deit_base/dense", is_wide=True)["Params (M) delta (M)"].text == "–"
        assert "Time saving (%) delta (points)" not in line  # nothing has been timed
        assert "+0.25" in markdown_text(views[scale], is_wide=True)
        assert "+0.25" in html_text(views[scale])
    small = entries(views["local"], "deit_small/dense", is_wide=True)
    group = "local top-1 (digits, not ImageNet)"
    assert [small[f"{group} {head}"].text for head in ("best epoch (%)", "last epoch (%)")] == [
        "93.90 ± 0.10", "93.40 ± 0.10",
    ]  # fmt: skip


def test_the_csv_reads_back(views: dict[str, View], frames: dict[str, pd.DataFrame]) -> None:
    back = pd.read_csv(io.StringIO(csv_text(views["paper"].results)))
    assert list(back.columns) == list(frames["paper"].columns)
    assert len(back) == len(load_table("table1").rows)
    assert back["top1_best_pct"].to_numpy() == pytest.approx(frames["paper"]["top1_best_pct"].to_numpy(), nan_ok=True)


def test_every_line_has_an_entry_for_each_column(views: dict[str, View]) -> None:
    for seen in views.values():
        for grid in (*seen.compact, *seen.wide):
            labels = dict.fromkeys(section.label for section in grid.sections)
            assert list(labels) == ["DeiT-Tiny", "DeiT-Small", "DeiT-Base"]
            lines = [cells for _, lines in grid.lines for _, cells in lines]
            assert len(lines) == len(load_table("table1").rows)
            assert {len(cells) for cells in lines} == {len(grid.columns)} == {sum(span for _, span in grid.spans)}


def test_local_accuracies_have_a_column_of_their_own(views: dict[str, View]) -> None:
    name = "local top-1, best epoch (digits, not ImageNet)"
    local, paper = (entries(views[scale], "deit_small/dense") for scale in ("local", "paper"))
    assert local[name].text == "93.90 ± 0.10"
    assert local["Top-1, best epoch (%)"].text == ""
    assert name not in paper
    assert paper["Top-1, best epoch (%)"].text == "79.90 ± 0.10"


def test_notes_have_what_columns_have_no_room_for(views: dict[str, View]) -> None:
    notes = {note.title: "\n".join(note.items) for note in views["paper"].notes}
    assert "best epoch" in notes["Verdicts"]
    assert "as long as before" in notes["Marks"]
    assert (
        "deit_base/dense, Top-1, best epoch (%): 81.8 (cited, deit_readme: DeiT-reported) decides, because its "
        "evidence is of the strongest kind; in conflict with 80.98 ± 0.03 (digitised"
        in notes["Published values in conflict"]
    )
    assert (
        "deit_small/dense, Top-1, best epoch (%): 79.9 (cited, deit_readme); also" in notes["Further published values"]
    )
    assert "deit_small/tp-50" in notes["Rows without a published value"]
    assert "missing (deit_tiny/svite-30, deit_tiny/svite-40, deit_tiny/ssp-30" in notes["Rows that are not finished"]
    assert "n = 3; best epoch 79.90 ± 0.10 (95 % interval" in notes["Accuracy over seeds"]
    assert "; last epoch 79.40 ± 0.10" in notes["Accuracy over seeds"]
    assert "abstract" in [source.name for source in views["paper"].sources]


def test_a_metric_is_a_line_in_table_yaml_and_one_in_measures(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new metric appears in frame, tables, terminal columns, notes and claims without further code."""
    monkeypatch.setitem(MEASURES, "top5_pct", MEASURES["top5_last_pct"])
    top5 = Metric("top5_pct", "Top-5, last epoch (%)", 0.3, "training", "test")
    (row,) = table.select(["deit_small/dense"])
    row = replace(
        row, table="other", published=(*row.published, PublishedValue("top5_pct", 94.9, 0.0, "cited", "deit_readme"))
    )
    wider = replace(table, name="other", metrics={**table.metrics, "top5_pct": top5}, rows=(row,), row_sets={})
    for scale, text, verdict in (("local", "", "other scale"), ("paper", "95.00 ± 0.10", "reproduced")):
        for seed, noise in enumerate((-0.1, 0.0, 0.1)):
            write_record(tmp_path, row, scale, seed, top5_last_pct=95.0 + noise)
        results = collect_results(wider, [row], scale, range(3), tmp_path)
        seen = view_of_results(results)
        cell = entries(seen, row.id)["Top-5, last epoch (%)"]
        assert (cell.text, cell.published, cell.verdict) == (text, "94.9", verdict)
        frame = pd.read_csv(io.StringIO(csv_text(results)))
        column = "top5_pct" if scale == "paper" else "local_top5_pct"
        assert (frame.loc[0, column], frame.loc[0, "top5_pct_verdict"]) == (pytest.approx(95.0), verdict)
        for written in (markdown_text(seen), html_text(seen), latex_text(seen)):
            assert "94.9" in written
        assert seen.summary.as_json()["evidence"]["trained"]["holds"] == (1 if scale == "paper" else 0)
    assert entries(seen, row.id, is_wide=True)["Top-5, last epoch (%) delta (points)"].text == "+0.10"
    (local,) = view_of_results(collect_results(wider, [row], "local", range(3), tmp_path)).compact
    assert "local top-5, last epoch (digits, not ImageNet)" in [column.head for column in local.columns]


@pytest.mark.parametrize(
    ("where", "url"),
    [
        ("arXiv 2106.04533", "https://arxiv.org/abs/2106.04533"),
        ("citing work, arXiv 2201.00814", "https://arxiv.org/abs/2201.00814"),
        ("github.com/VITA-Group/SViTE, README.md at commit b0c62fd", "https://github.com/VITA-Group/SViTE"),
        ("citing work", ""),
    ],
)
def test_a_source_has_an_address_where_it_names_one(where: str, url: str) -> None:
    assert source_url(where) == url


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [(52.0, 0.05, "52.0"), (43.0, 0.5, "43"), (79.22, 0.0, "79.22"), (64.0, 0.4, "64.0"), (4.4, 0.005, "4.40")],
)
def test_published_numbers_keep_the_digits_of_their_source(value: float, uncertainty: float, text: str) -> None:
    assert published_number(PublishedValue("top1_pct", value, uncertainty, "cited", "test")) == text


@pytest.fixture
def nasty(table: Table, tmp_path: Path) -> View:
    """A table in which all text contains markup characters."""
    rows = tuple(
        replace(
            row,
            id=f"{row.id} {NASTY.replace('/', '')}",
            published=tuple(replace(value, note=NASTY) for value in row.published),
        )
        for row in table.rows[:12]
    )
    sources = {name: Source(name, NASTY, NASTY) for name in table.sources}
    # Another name, because claims about table1 refer to its own rows.
    trapped = replace(
        table, name="trapped", title=NASTY, paper=NASTY, rows=rows, sources=sources, labels={"deit_tiny": NASTY}
    )
    results = collect_results(trapped, rows, "local", [0], tmp_path, [])
    return replace(view_of_results(results), facts=(("Overrides", NASTY),))


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_shows_traps_as_text_and_needs_no_other_file(nasty: View) -> None:
    text = html_text(nasty)
    page = _Words()
    page.feed(text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert page.text.count(NASTY) > 10
    assert not re.search(r"src=|url\(|@import", text)
    assert {address[:1] for address in re.findall(r'href="([^"]*)"', text)} == {"#"}


def test_verdicts_in_html_are_coloured_marked_and_worded(views: dict[str, View]) -> None:
    text = html_text(views["paper"])
    for tone, mark, word in (("good", "✓", "reproduced"), ("off", "▲", "above"), ("off", "▼", "below")):
        badge = (
            f'<span class="badge {tone}"><span aria-hidden="true">{mark}</span><span class="word"> {word}</span></span>'
        )
        assert badge in text
    assert '<span class="badge bad">failed</span>' in text
    assert "prefers-color-scheme: dark" in text


def test_a_published_number_links_to_its_source(views: dict[str, View]) -> None:
    text = html_text(views["paper"])
    links = set(re.findall(r'href="#(table1-source-\w+)"', text))
    assert "table1-source-savit" in links
    assert all(f'id="{link}"' in text for link in links)
    assert 'href="https://arxiv.org/abs/2106.04533"' in text


def test_markdown_keeps_traps_in_their_cells(nasty: View) -> None:
    text = markdown_text(nasty)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert "## Claims" not in text, "there are none about this table"
    assert len(lines) == 2 + 12 + 2
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<script" not in text


def test_raised_letters_are_explained_where_there_are_any(views: dict[str, View], table: Table, tmp_path: Path) -> None:
    words = "Raised letters: see Marks in the notes."
    ours = [row for row in table.every_row if not row.published and row.is_run_at("local")][-1:]
    plain = view_of_results(collect_results(table, ours, "local", [0], tmp_path))
    for seen, count in ((views["paper"], 1), (plain, 0)):
        for text in (markdown_text(seen), markdown_text(seen, is_wide=True), html_text(seen)):
            assert text.count(words) == count
            assert ("<sup>" in text) is bool(count)


def test_latex_leaves_no_trap_bare(nasty: View) -> None:
    text = latex_text(nasty)
    assert escaping.latex(NASTY) in text
    assert "U+6F22" in text
    assert r"\textless{}script\textgreater{}" in text


@given(st.text())
def test_escaped_text_has_no_active_character(text: str) -> None:
    escaped = escaping.latex(text)
    assert not re.search(r"(?<!\\)[$&%#_]", escaped)
    assert escaped.isascii() or set(re.findall(r"[^\x00-\x7f]", escaped)) <= {chr(code) for code in range(0xC0, 0x100)}
    shown = escaping.markdown(text)
    assert "<" not in shown
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*\|", re.sub(r"\\\|", "", shown))


def full_view(table: Table, root: Path) -> View:
    """Everything that a table can show at once: all rows, with timings, runs on other data, and a missing seed."""
    rows = table.select([], "local")
    for row in (row for row in rows if not row.reads_runs_of):
        write_record(root, row, "local", 0, top1_best_pct=80.0)
        write_record(root, row, "local", 1, top1_best_pct=70.0)
        write_saving(root, row, 30.0)
    return view_of_results(collect_results(table, rows, "local", [0, 1, 2], root))


@needs("pdflatex", shutil.which("pdflatex"), "REPRO_REQUIRE_LATEX")
@pytest.mark.parametrize(
    "which", ["local", "paper", "nasty", *table_names(), *(f"{name} full" for name in table_names())]
)
def test_latex_compiles_on_its_own_and_fits_a_neurips_page(
    views: dict[str, View], nasty: View, tmp_path: Path, which: str
) -> None:
    if which in table_names() or which.endswith(" full"):
        table = load_table(which.removesuffix(" full"))
        is_full = which.endswith(" full")
        rows = table.select([], "local")
        empty = tmp_path / "runs"
        seen = (
            full_view(table, empty) if is_full else view_of_results(collect_results(table, rows, "local", [0], empty))
        )
    else:
        seen = nasty if which == "nasty" else views[which]
    (path,) = (path for path in write_tables(seen, tmp_path, {}) if path.suffix == ".tex")
    text = path.read_text(encoding="utf-8")
    assert "textwidth=5.5in" in text
    assert r"\toprule" in text
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", path.name]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60)
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output[-2000:]
    assert path.with_suffix(".pdf").stat().st_size > 10_000
    if which != "nasty":  # its words are as long as a line
        assert "Overfull" not in output


def test_columns_without_room_are_those_with_the_least_weight() -> None:
    columns = [Column(name, (), weight=weight) for name, weight in (("a", 1.0), ("b", 3.0), ("c", 2.0), ("d", 0.5))]
    assert columns_that_fit(columns, [10, 10, 10, 10], 40) == [0, 1, 2, 3]
    assert columns_that_fit(columns, [10, 10, 10, 10], 25) == [1, 2]
    assert columns_that_fit(columns, [10, 10, 30, 5], 25) == [0, 1, 3]


def test_a_folder_is_named_as_it_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are markup in the terminal: an unmatched closing tag would crash the command."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["report", "table1", "deit_tiny/dense", "--reports", "old [/red] [bold]"])
    assert ended.value.code == 0
    assert "Files: old [/red] [bold]/table1/local/ (csv," in capsys.readouterr().out


def test_a_report_is_all_its_files(roots: dict[str, Path], table: Table, tmp_path: Path) -> None:
    report = build(table, table.rows, "local", (0, 1, 2), roots["local"], tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in report.paths]
    assert names[:5] == [
        f"table1/local/{name}" for name in (*(f"table1.{e}" for e in ("csv", "md", "tex", "html")), "summary.json")
    ]
    assert {f"table1/local/figure1.{ending}" for ending in ("svg", "png", "pdf")} <= set(names)
    assert names[-4:] == [*(f"table1/local/{name}" for name in ("card.md", "card.json", "section.json")), "index.html"]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(report.paths)
    summary = json.loads((tmp_path / "table1" / "local" / "summary.json").read_text())
    assert summary["evidence"]["counted"] == {"published": 54, "holds": 53, "does_not_hold": 1, "undecided": {}}
    assert [(one["row"], one["metric"]) for one in summary["does_not_hold"]] == [
        ("deit_small/s2vite_plus-10-40", "macs_g")
    ]


def test_claims_do_not_depend_on_the_rows_that_are_shown(roots: dict[str, Path], table: Table, tmp_path: Path) -> None:
    for scale in ("local", "paper"):
        rows = table.select(["deit_tiny/*"])
        part = build(table, rows, scale, (0, 1, 2), roots[scale], tmp_path / scale)
        whole = judge_claims(collect_results(table, table.rows, scale, (0, 1, 2), roots[scale]))
        assert part.view.claims == whole
        assert {claim.verdict for claim in part.view.claims} >= {"holds", "not measured"}
        assert [row.row.id for row in part.view.results.rows] == [row.id for row in rows]
        for path in (
            *(part.folder / f"table1.{ending}" for ending in ("md", "tex", "html")),
            tmp_path / scale / "index.html",
        ):
            text = path.read_text(encoding="utf-8")
            assert f"{len(rows)} of {len(table.rows)} rows chosen, 2 of them finished" in text
            assert text.count(">holds<" if path.suffix == ".html" else "holds") >= 2
    # Options of one method do not apply to the other methods that claims name.
    own = table.select(["deit_tiny/s2vite-30"])
    part = build(table, own, "local", [0], tmp_path, tmp_path / "own", ["method.weights.growth=as_released"])
    assert "holds" in {claim.verdict for claim in part.view.claims}


def test_every_link_within_a_page_has_its_place(roots: dict[str, Path], table: Table, tmp_path: Path) -> None:
    # Claims and orderings name rows of other backbones, which this report does not show.
    report = build(table, table.select(["deit_tiny/*"]), "local", (0, 1, 2), roots["local"], tmp_path)
    for path in (report.folder / "table1.html", tmp_path / "index.html"):
        text = path.read_text(encoding="utf-8")
        places = set(re.findall(r'\bid="([^"]+)"', text))
        links = re.findall(r'\bhref="#([^"]+)"', text)
        assert any(link.endswith("deit_tiny/s2vite-30") for link in links)
        assert [link for link in links if link not in places] == []
        assert "deit_small/svite_plus-5-50" in text


def test_our_own_rows_are_counted_apart_from_the_papers(table: Table, tmp_path: Path) -> None:
    ours = next(row for row in table.every_row if row not in table.select([], "local") and row.is_run_at("local"))
    for rows, words in (
        (table.select([], "local"), f"{len(table.select([], 'local'))}, 0"),
        ([table.rows[0], ours], f"1 of {len(table.select([], 'local'))} rows chosen and 1 more, 0"),
    ):
        seen = view_of_results(collect_results(table, rows, "local", [0], tmp_path))
        assert dict(seen.facts)["Rows"] == f"{words} of them finished in all seeds"


def test_a_selection_of_rows_and_an_override_are_named(table: Table, tmp_path: Path) -> None:
    rows = table.select(["deit_tiny/*"])
    report = build(table, rows, "smoke", [0], tmp_path, tmp_path, ["recipe.epochs=3"])
    text = report.paths[1].read_text(encoding="utf-8")
    assert f"- Rows: {len(rows)} of {len(table.rows)} rows chosen, 0 of them finished in all seeds" in text
    assert "- Overrides: recipe.epochs=3" in text
    assert "- Commits: none: no finished record" in text
    assert "trained on digits (not ImageNet)" in text

"""The writers. Golden files: `REPRO_UPDATE_GOLDEN=1 pytest tests/report/test_report_tables.py` writes them anew; read
the difference before committing it. They hold nothing of the machine: the records' commit is made up, no time is shown.
"""

from __future__ import annotations

import io
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
from report_records import write_record, write_saving
from rich.console import Console

from repro.cli import main
from repro.paper_tables import load_table, table_names
from repro.report import escaping
from repro.report.build import build
from repro.report.claims import judge_claims
from repro.report.collect import collect
from repro.report.latex_width import broken, text_pt
from repro.report.tables import csv_text, html_text, latex_text, markdown_text, print_table, write_tables
from repro.report.view import published_number, view
from repro.rows import PublishedValue, Source, Table

GOLDEN = Path(__file__).resolve().parent / "golden"
NASTY = r"""<script>alert("x")</script> & | ` * _ ~ ^ # % $ \ { } [a](b) -- 'q' é 漢 ±"""


def hold_to_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("REPRO_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{name} differs; see this module's docstring"


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_golden_files(frames: dict[str, pd.DataFrame], table: Table, scale: str) -> None:
    seen = view(frames[scale], table)
    hold_to_golden(f"{scale}.csv", csv_text(frames[scale]))
    hold_to_golden(f"{scale}.md", markdown_text(seen))
    hold_to_golden(f"{scale}.tex", latex_text(seen))
    hold_to_golden(f"{scale}.html", html_text(seen))


def test_differences_have_a_column_with_their_unit(frames: dict[str, pd.DataFrame], table: Table) -> None:
    for scale, with_accuracy in (("local", False), ("paper", True)):
        seen = view(frames[scale], table)
        heads = [column.title for column in seen.columns]
        assert ("Top-1 (%) delta (points)" in heads) is with_accuracy
        cells = {line[0].text: dict(zip(heads, line, strict=True)) for part in seen.sections for line in part.lines}
        line = cells["deit_base/s2vite-40"]
        shown = [line[f"FLOPs saving (%) {head}"].text for head in ("measured", "published", "delta (points)")]
        assert shown == ["33.35", "33.1", "+0.25"]
        assert line["Params (M) delta (M)"].text == "+0.01"
        assert cells["deit_base/dense"]["Params (M) delta (M)"].text == "–"
        assert "Time saving (%) delta (points)" not in heads  # nothing has been timed
        for text in (markdown_text(seen), html_text(seen), latex_text(seen)):
            assert "+0.25" in text
            assert "delta (points)" in text.replace(r"\\", " ")  # in LaTeX a head may take two lines


def test_the_csv_reads_back(frames: dict[str, pd.DataFrame]) -> None:
    back = pd.read_csv(io.StringIO(csv_text(frames["paper"])))
    assert list(back.columns) == list(frames["paper"].columns)
    assert len(back) == 42
    assert back["top1_best_pct"].to_numpy() == pytest.approx(frames["paper"]["top1_best_pct"].to_numpy(), nan_ok=True)


def test_every_cell_has_a_column(frames: dict[str, pd.DataFrame], table: Table) -> None:
    for frame in frames.values():
        seen = view(frame, table)
        assert [section.label for section in seen.sections] == ["DeiT-Tiny", "DeiT-Small", "DeiT-Base"]
        lines = [line for section in seen.sections for line in section.lines]
        assert len(lines) == 42
        assert {len(line) for line in lines} == {len(seen.columns)} == {sum(span for _, span in seen.spans)}


def test_local_accuracies_have_a_column_that_says_so(frames: dict[str, pd.DataFrame], table: Table) -> None:
    name = "local top-1 (digits, not ImageNet)"
    for scale, there in (("local", True), ("paper", False)):
        seen = view(frames[scale], table)
        heads = [column.title for column in seen.columns]
        assert (name in heads) is there
        title = "Top-1 (%) measured"
        left_out = {note.title: note.items for note in seen.notes}["Columns left out"]
        if scale == "local":
            assert title not in heads
            assert f"{title}: other scale where anything is said" in left_out
        else:
            words = {line[heads.index(title)].text for section in seen.sections for line in section.lines}
            assert "79.90 ± 0.10" in words


def test_notes_say_what_columns_cannot(frames: dict[str, pd.DataFrame], table: Table) -> None:
    notes = {note.title: "\n".join(note.items) for note in view(frames["paper"], table).notes}
    assert "best epoch" in notes["Verdicts"]
    assert "as long as before" in notes["Marks"]
    assert (
        "deit_base/dense, Top-1 (%): 81.8 (cited, deit_readme: DeiT-reported); also 80.98 ± 0.03 (digitised"
        in (notes["Further published values"])
    )
    assert "deit_small/tp-50" in notes["Rows without a published value"]
    assert "missing (deit_tiny/svite-30, deit_tiny/svite-40, deit_tiny/ssp-30" in notes["Rows that are not finished"]
    assert "measured 2.79: above" in notes["Published for single rows"]
    assert "arXiv 2106.04533" in notes["Sources"]


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [(52.0, 0.05, "52.0"), (43.0, 0.5, "43"), (79.22, 0.0, "79.22"), (64.0, 0.4, "64.0"), (4.4, 0.005, "4.40")],
)
def test_published_numbers_keep_the_digits_of_their_source(value: float, uncertainty: float, text: str) -> None:
    assert published_number(PublishedValue("top1_pct", value, uncertainty, "cited", "test")) == text


@pytest.fixture
def nasty(table: Table, tmp_path: Path) -> tuple[pd.DataFrame, Table]:
    """A table whose every text is a trap."""
    rows = tuple(
        replace(
            row,
            id=f"{row.id} {NASTY.replace('/', '')}",
            published=tuple(replace(value, note=NASTY) for value in row.published),
        )
        for row in table.rows[:12]
    )
    sources = {name: Source(name, NASTY, NASTY) for name in table.sources}
    # Another name, because claims about table1 speak of its own rows.
    trapped = replace(
        table, name="trapped", title=NASTY, paper=NASTY, rows=rows, sources=sources, labels={"deit_tiny": NASTY}
    )
    frame = collect(trapped, rows, "local", [0], tmp_path)
    frame["reason"] = NASTY
    return frame, trapped


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_shows_traps_as_text_and_needs_no_other_file(nasty: tuple[pd.DataFrame, Table]) -> None:
    text = html_text(view(*nasty, [NASTY]))
    page = _Words()
    page.feed(text)
    assert not page.tags & {"script", "link", "img", "iframe", "a"}
    assert page.text.count(NASTY) > 10
    assert not re.search(r"(src|href)=|url\(|@import", text)


def test_verdicts_in_html_are_coloured_and_worded(frames: dict[str, pd.DataFrame], table: Table) -> None:
    text = html_text(view(frames["paper"], table))
    for tone, word in (("good", "reproduced"), ("off", "above"), ("off", "below"), ("bad", "failed")):
        assert f'<span class="badge {tone}">{word}</span>' in text
    assert "prefers-color-scheme: dark" in text
    assert "position: sticky" in text


def test_markdown_keeps_traps_in_their_cells(nasty: tuple[pd.DataFrame, Table]) -> None:
    text = markdown_text(view(*nasty))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert "## Claims" not in text, "there are none about this table"
    assert len(lines) == 2 + 12 + 2
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<script" not in text


def test_latex_leaves_no_trap_bare(nasty: tuple[pd.DataFrame, Table]) -> None:
    text = latex_text(view(*nasty))
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


def wide_frame(table: Table, root: Path) -> pd.DataFrame:
    """All that a table can show at once: every row, timed, run on other data, a seed missing."""
    rows = table.select([], "local")
    for row in (row for row in rows if not row.run_of):
        write_record(root, row, "local", 0, top1_best_pct=80.0)
        write_record(root, row, "local", 1, top1_best_pct=70.0)
        write_saving(root, row, 30.0)
    return collect(table, rows, "local", [0, 1, 2], root)


@needs("pdflatex", shutil.which("pdflatex"), "REPRO_REQUIRE_LATEX")
@pytest.mark.parametrize(
    "which", ["local", "paper", "nasty", *table_names(), *(f"{name} wide" for name in table_names())]
)
def test_latex_compiles_on_its_own_and_nothing_lies_off_the_paper(
    frames: dict[str, pd.DataFrame], table: Table, nasty: tuple[pd.DataFrame, Table], tmp_path: Path, which: str
) -> None:
    if which in table_names() or which.endswith(" wide"):
        its_table = load_table(which.removesuffix(" wide"))
        is_wide = which.endswith(" wide")
        frame = (
            wide_frame(its_table, tmp_path / "runs")
            if is_wide
            else collect(its_table, its_table.select([], "local"), "local", [0], tmp_path)
        )
    else:
        frame, its_table = nasty if which == "nasty" else (frames[which], table)
    write_tables(frame, its_table, tmp_path)
    text = (tmp_path / f"{its_table.name}.tex").read_text(encoding="utf-8")
    assert "twice" in text.splitlines()[0]
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{its_table.name}.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60)
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output[-2000:]
    assert (tmp_path / f"{its_table.name}.pdf").stat().st_size > 10_000
    assert "Rerun" not in output
    if which != "nasty":  # whose words are as long as a line of notes
        assert "Overfull" not in output


@given(st.text(alphabet="abc m%W-", max_size=60), st.floats(30, 200))
def test_a_head_is_broken_between_its_words_alone(text: str, room_pt: float) -> None:
    lines = broken(text, room_pt)
    assert " ".join(lines).split() == text.split()
    assert all(text_pt(line) <= room_pt or " " not in line for line in lines)


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_the_terminal_shows_all_rows_in_120_columns(frames: dict[str, pd.DataFrame], table: Table, scale: str) -> None:
    out = io.StringIO()
    print_table(frames[scale], table, Console(file=out, width=120, color_system=None))
    text = out.getvalue()
    lines = text.splitlines()
    grid = lines[lines.index(next(line for line in lines if line.startswith("row"))) :]
    assert all(len(line) <= 120 for line in grid)
    assert "…" not in text
    names = {line.split()[0] for line in grid if line.startswith(" ")}
    assert names == {row.id.partition("/")[2] for row in table.rows}
    assert sum(line.startswith(" ") for line in grid) == 42
    assert ("ImageNet)" in text) is (scale == "local")


@pytest.mark.parametrize(("name", "width"), [("table1", 120), ("table2", 140), ("table3", 120)])
def test_the_terminal_shows_the_time_saved_where_one_is_measured(name: str, width: int, tmp_path: Path) -> None:
    table = load_table(name)
    frame = wide_frame(table, tmp_path)
    for seen, is_timed in ((frame, True), (frame.assign(time_saving_pct=float("nan")), False)):
        out = io.StringIO()
        print_table(seen, table, Console(file=out, width=width, color_system=None))
        lines = out.getvalue().splitlines()
        rule = next(place for place, line in enumerate(lines) if line.startswith("─"))
        assert max(map(len, lines[2:])) <= width  # the first two are the title and the facts
        assert "…" not in out.getvalue()
        assert any("Time" in line for line in lines[2:rule]) is is_timed
        cells = {line.split()[0]: line.split()[1:] for line in lines[rule + 1 :] if line.startswith(" ")}
        names = [row.id.removeprefix(f"{row.backbone}/") for row in table.select([], "local")]
        assert set(cells) == set(names), "no line is folded"
        timed = [name for name, saved in zip(names, frame["time_saving_pct"].notna(), strict=True) if saved]
        assert all(("30.0" in cells[name]) is is_timed for name in timed)
    out = io.StringIO()
    print_table(frame, table, Console(file=out, width=90, color_system=None))
    assert "Time" not in out.getvalue().partition("─")[0].splitlines()[-2], "there is no room for it"


def test_markup_in_names_is_not_read_by_the_terminal(nasty: tuple[pd.DataFrame, Table]) -> None:
    out = io.StringIO()
    print_table(*nasty, Console(file=out, width=400, color_system=None))
    assert NASTY in out.getvalue()


def test_a_folder_is_named_as_it_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are the terminal's own markup: a closing one that closes nothing would end the command."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["report", "table1", "deit_tiny/dense", "--reports", "old [/red] [bold]"])
    assert ended.value.code == 0
    assert "old [/red] [bold]/table1/table1.csv\n" in capsys.readouterr().out


def test_a_report_is_all_its_files(roots: dict[str, Path], table: Table, tmp_path: Path) -> None:
    report = build(table, table.rows, "local", (0, 1, 2), roots["local"], tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in report.paths]
    tables = [f"table1/table1.{ending}" for ending in ("csv", "md", "tex", "html")]
    figures = [
        f"{name}.{ending}" for name in ("figure1", "table1_sparsity", "table1_cost") for ending in ("svg", "png", "pdf")
    ]
    page = ["table1/card.md", "table1/card.json", "table1/section.json", "index.html"]
    assert names == [*tables, *figures, *page]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(report.paths)
    assert len(report.frame) == 42


def test_claims_do_not_hang_on_the_rows_that_are_shown(roots: dict[str, Path], table: Table, tmp_path: Path) -> None:
    """A part of a table says that it is one, and what is claimed of the table has the verdict that it has."""
    for scale in ("local", "paper"):
        rows = table.select(["deit_tiny/*"])
        part = build(table, rows, scale, (0, 1, 2), roots[scale], tmp_path / scale)
        whole = judge_claims(collect(table, table.rows, scale, (0, 1, 2), roots[scale]), table)
        assert part.claims == whole
        assert {claim.verdict for claim in part.claims} >= {"holds", "not measured"}
        assert list(part.frame["row"]) == [row.id for row in rows]
        for name in ("table1/table1.md", "table1/table1.tex", "table1/table1.html", "index.html"):
            text = (tmp_path / scale / name).read_text(encoding="utf-8")
            assert "8 of 42 rows chosen, 2 of them finished" in text
            assert text.count(">holds<" if name.endswith("html") else "holds") >= 2
    # Options of one method say nothing to the others that are claimed about.
    own = table.select(["deit_tiny/s2vite-30"])
    part = build(table, own, "local", [0], tmp_path, tmp_path / "own", ["method.weights.growth=as_released"])
    assert "holds" in {claim.verdict for claim in part.claims}


def test_rows_beside_those_of_the_paper_are_counted_apart(table: Table, tmp_path: Path) -> None:
    ours = next(row for row in table.every_row if row not in table.select([], "local") and row.is_run_at("local"))
    for rows, words in (
        (table.select([], "local"), f"{len(table.select([], 'local'))}, 0"),
        ([table.rows[0], ours], f"1 of {len(table.select([], 'local'))} rows chosen and 1 more, 0"),
    ):
        seen = view(collect(table, rows, "local", [0], tmp_path), table)
        assert dict(seen.facts)["Rows"] == f"{words} of them finished in all seeds"


def test_a_selection_of_rows_and_an_override_are_told(table: Table, tmp_path: Path) -> None:
    report = build(table, table.select(["deit_tiny/*"]), "smoke", [0], tmp_path, tmp_path, ["recipe.epochs=3"])
    text = report.paths[1].read_text(encoding="utf-8")
    assert "- Rows: 8 of 42 rows chosen, 0 of them finished in all seeds" in text
    assert "- Overrides: recipe.epochs=3" in text
    assert "- Commits: none: no finished record" in text
    assert "smoke top-1 (digits, not ImageNet)" in text

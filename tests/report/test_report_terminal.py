"""Terminal output at four widths. `REPRO_UPDATE_GOLDEN=1` updates the snapshots, like those of the tables."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import view_of_results, write_record, write_saving
from rich.console import Console
from test_report_tables import NASTY, full_view, hold_to_golden, nasty  # noqa: F401  # a fixture

from repro.report.build import Report
from repro.report.collect import collect_results
from repro.report.terminal import print_files, print_view
from repro.report.view import View
from repro.tables.loader import load_table
from repro.tables.rows import Table

WIDTHS = (80, 100, 120, 160)


def printed(seen: View, width: int, *, is_wide: bool = False) -> str:
    out = io.StringIO()
    print_view(seen, Console(file=out, width=width, color_system=None, highlight=False), is_wide=is_wide)
    return out.getvalue()


def numbers_of(text: str) -> list[list[str]]:
    """Return the numbers in each row of the table, after the row's name."""
    table = text.partition("claims")[0]
    rows = [line.strip() for line in table.splitlines() if re.match(r" [a-z]", line)]
    return [re.findall(r"\d+\.\d+|\d+", row.partition(" ")[2]) for row in rows]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", ["local", "paper"])
def test_snapshots(views: dict[str, View], scale: str, width: int) -> None:
    hold_to_golden(f"terminal-{scale}-{width}.txt", printed(views[scale], width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_no_number_is_cut(name: str, width: int, tmp_path: Path) -> None:
    table = load_table(name)
    seen = full_view(table, tmp_path)
    text = printed(seen, width)
    assert "…" not in text.replace("… running", "")
    assert max(map(len, text.splitlines())) <= width
    known = {
        number
        for grid in seen.compact
        for column in grid.columns
        for entry in column.entries
        for number in re.findall(r"\d+\.\d+|\d+", f"{entry.text} {entry.published}")
    }
    found = numbers_of(text)
    assert len(found) == len(table.select([], "local"))
    shown = {number for numbers in found for number in numbers}
    assert shown <= known | {"2", "3"}, "partial (2 of 3)"


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_more_room_shows_more(name: str, tmp_path: Path) -> None:
    seen = full_view(load_table(name), tmp_path)
    counts = [sum(map(len, numbers_of(printed(seen, width)))) for width in WIDTHS]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    wide = printed(seen, 80, is_wide=True)
    assert "verdict" in wide
    assert "no room for" not in wide


@pytest.mark.parametrize("label", ["Latency [ms]", "Latency [/ms]"])
def test_brackets_in_a_label_are_printed(label: str, views: dict[str, View]) -> None:
    (grid,) = views["local"].compact
    column = replace(grid.columns[0], head=label)
    seen = replace(views["local"], compact=(replace(grid, columns=(column, *grid.columns[1:])),))
    assert label.split()[1] in printed(seen, 160).split()


def test_what_is_left_out_is_named(views: dict[str, View]) -> None:
    text = " ".join(printed(views["local"], 60).split())
    assert text.count("no room for: ") == 1
    assert "Time saving (%)" in text.partition("no room for: ")[2]


def test_published_values_are_shown_where_there_is_room(views: dict[str, View]) -> None:
    narrow, broad = (printed(views["local"], width) for width in (80, 160))
    (row,) = [line for line in broad.splitlines() if line.startswith(" s2vite_plus-10-40")]
    assert "2.79 (2.7) ▲" in row
    (row,) = [line for line in narrow.splitlines() if line.startswith(" ssp-40")][:1]
    assert "31.86 ✓" in row, "a verdict is shown at every width"


def test_facts_break_between_words(views: dict[str, View]) -> None:
    facts = printed(views["local"], 60).partition("scale local")[2].partition("Params")[0]
    assert "5 of them finished in all seeds; " in " ".join(facts.split())
    assert all(len(line) <= 60 for line in facts.splitlines())


def test_estimates_are_marked_and_the_legend_says_what_is_shown(views: dict[str, View]) -> None:
    narrow, broad = (printed(views["paper"], width) for width in (80, 200))
    (row,) = [line for line in narrow.splitlines() if line.startswith(" omp-30")]
    assert row.partition("omp-30")[2].split() == ["4.02", "0.93e", "25.72e", "–"]
    assert "e: estimate" in narrow
    assert "not measured" in broad.partition("(published value)")[2].partition("claims")[0]
    assert "not measured" not in narrow.partition("(published value)")[2].partition("claims")[0], "no time is shown"


def test_a_time_is_shown_once_it_is_taken(table: Table, tmp_path: Path) -> None:
    rows = table.select(["deit_small/dense", "deit_small/s2vite-40"])
    write_record(tmp_path, rows[0], "local", 0)
    write_saving(tmp_path, rows[1], 23.0, threads=2)
    text = printed(view_of_results(collect_results(table, rows, "local", [0], tmp_path)), 160)
    assert "23.0 (22.7) (✓)" in text, "in brackets: a CPU decides nothing"


def test_markup_in_names_is_text(nasty: View) -> None:  # noqa: F811
    assert NASTY.replace("/", "") in printed(nasty, 900)


def test_files_are_one_line_and_the_last_line_opens_the_page(views: dict[str, View], tmp_path: Path) -> None:
    folder = tmp_path / "table1" / "local"
    paths = tuple(folder / name for name in ("a.csv", "a.md", "b.svg", "c.svg"))
    (tmp_path / "index.html").touch()
    out = io.StringIO()
    print_files(Report(views["local"], folder, paths), tmp_path, Console(file=out, width=80))
    first, last = out.getvalue().splitlines()
    assert first == f"Files: {folder}/ (csv, md, 2 svg)"
    assert last == f"Page: open {(tmp_path / 'index.html').as_uri()} in a browser"

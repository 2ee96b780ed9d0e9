"""The summary: contradictions first, then what holds by kind of evidence."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from report_records import view_of_results, write_record, write_saving
from rich.console import Console

from repro.report.collect import collect_results
from repro.report.summary import EvidenceCount, claims_words, contradiction
from repro.report.tables import html_text, latex_text, markdown_text
from repro.report.terminal import print_view
from repro.report.view import View
from repro.tables.loader import load_table, table_names
from repro.tables.rows import Table


def of(table: Table, scale: str, root: Path, patterns: list[str] | None = None, seeds: int = 1) -> View:
    return view_of_results(collect_results(table, table.select(patterns or [], scale), scale, range(seeds), root))


def test_a_table_without_runs_has_its_counts_and_is_not_green(table: Table, tmp_path: Path) -> None:
    seen = of(table, "local", tmp_path)
    assert seen.summary.lines == [
        "No run is finished: only counts are decided. make table1 SCALE=local starts the runs.",
        "Does not hold: deit_small/s2vite_plus-10-40, MACs (G): counted 2.79, published 2.7.",
        "Counted: 53 of 54 published values hold, 1 does not.",
        "Timed: 0 of 8 published values decided (8 not measured); they need a GPU: repro bench time table1.",
        "Trained: 0 of 37 published values decided (37 missing); "
        "they need the published training on ImageNet: make table1 SCALE=paper.",
        "Claims: 2 hold, 2 not measured, 3 not run at this scale.",
        "Rows by their highest evidence (counted, local, mini, weights, paper): 42 counted.",
        "Scale local: small models of the same family, trained on digits (not ImageNet). "
        "Their accuracies only test the code; counts are those of the published models.",
    ]
    assert seen.summary.tone == "off"
    for name in table_names():
        empty = of(load_table(name), "local", tmp_path)
        assert empty.summary.tone in ("off", "quiet")
        assert empty.summary.lines[0].startswith("No run is finished")
        assert html_text(empty).index("No run is finished") < html_text(empty).index("<table")


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        ({"reproduced": 1}, "1 of 1 published value holds"),
        ({"reproduced": 1, "below": 2}, "1 of 3 published values holds, 2 do not"),
        ({"below": 1}, "0 of 1 published value hold, 1 does not"),
        ({"missing": 1}, "0 of 1 published value decided"),
        ({"reproduced": 2, "below": 1}, "2 of 3 published values hold, 1 does not"),
    ],
)
def test_a_count_agrees_with_its_noun_and_verb(verdicts: dict[str, int], words: str) -> None:
    count = EvidenceCount("counted", verdicts)
    assert count.words("published value") == words
    assert count.words() == re.sub(" published values?", "", words)


@pytest.mark.parametrize(("scale", "start"), [("paper", "the published training"), ("smoke", "a few training steps")])
def test_a_sentence_says_what_the_scale_is(table: Table, tmp_path: Path, scale: str, start: str) -> None:
    assert of(table, scale, tmp_path).summary.lines[-1].startswith(f"Scale {scale}: {start}")


def test_all_that_is_decided_and_holds_is_green(table: Table, tmp_path: Path) -> None:
    (row,) = table.select(["deit_small/dense"])
    for seed in range(3):
        write_record(tmp_path, row, "paper", seed, top1_best_pct=79.9)
    summary = of(table, "paper", tmp_path, [row.id], 3).summary
    assert (summary.tone, summary.lines[0]) == ("good", "Trained: 1 of 1 published value holds.")
    (below,) = table.select(["deit_tiny/ssp-30"])
    for seed in range(3):
        write_record(tmp_path, below, "paper", seed, top1_best_pct=60.0)
    summary = of(table, "paper", tmp_path, [row.id, below.id], 3).summary
    assert summary.tone == "off"
    assert summary.lines[0].startswith("Does not hold: deit_tiny/ssp-30, Top-1, best epoch (%): measured 60.00")


@pytest.mark.parametrize(
    ("threads", "line"),
    [
        (0, "Timed: 1 of 1 published value holds."),
        (
            2,
            "Timed: 0 of 1 published value decided (1 reproduced on CPU); they need a GPU: repro bench time table1.",
        ),
    ],
)
def test_a_time_on_a_cpu_decides_nothing(table: Table, tmp_path: Path, threads: int, line: str) -> None:
    (row,) = table.select(["deit_small/svite_plus-5-50"])
    write_saving(tmp_path, row, 4.4, threads=threads)
    assert line in of(table, "local", tmp_path, [row.id]).summary.lines


@pytest.mark.parametrize(
    ("verdict", "n", "words"),
    [
        ("holds", 1, "1 holds"),
        ("holds", 2, "2 hold"),
        ("holds on CPU", 2, "2 hold on CPU"),
        ("does not hold", 1, "1 does not hold"),
        ("does not hold on CPU", 3, "3 do not hold on CPU"),
        ("not measured", 2, "2 not measured"),
    ],
)
def test_claims_are_counted_in_english(verdict: str, n: int, words: str) -> None:
    assert claims_words(verdict, n) == words


def test_the_summary_is_in_every_output_and_counts_are_never_called_measured(views: dict[str, View]) -> None:
    for seen in views.values():
        out = io.StringIO()
        print_view(seen, Console(file=out, width=500, color_system=None))
        for text in (markdown_text(seen), out.getvalue()):
            assert all(line in text.replace("\\", "") for line in seen.summary.lines)
        assert out.getvalue().splitlines()[-len(seen.summary.lines) :] == seen.summary.lines
        assert "Counted: 53 of 54 published values hold, 1 does not." in latex_text(seen)
        page = html_text(seen)
        assert all(line.split(": ", 1)[1] in page for line in seen.summary.count_lines)
        assert '<a href="#table1-deit_small/s2vite_plus-10-40">' in page
        assert 'id="table1-deit_small/s2vite_plus-10-40"' in page
        for text in (markdown_text(seen, is_wide=True), page):
            assert "Params (M) measured" not in text


def test_readme_has_the_summary_of_each_table(tmp_path: Path) -> None:
    """Counts need no runs and are decided everywhere, so the README's table is that of a clone without records."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    for name in table_names():
        summary = of(load_table(name), "local", tmp_path).summary
        contradicted = "; ".join(f"{cell.row.id}: {contradiction(cell)}" for cell in summary.contradicted)
        counts = [count.words().partition(",")[0] if count.published else "–" for count in summary.evidence]
        line = f"| {name} | {' | '.join(counts)} | {contradicted or '–'} |"
        assert line in readme.splitlines(), f"README.md should have the line\n{line}"


@pytest.mark.parametrize(
    ("overrides", "stated"),
    [
        (["launcher=inline", "tracker=none"], []),
        (["recipe.epochs=3", "launcher=inline"], ["recipe.epochs=3"]),
    ],
)
def test_a_report_states_the_overrides_that_can_change_a_result(
    table: Table, tmp_path: Path, overrides: list[str], stated: list[str]
) -> None:
    rows = table.select(["deit_tiny/dense"])
    seen = view_of_results(collect_results(table, rows, "local", [0], tmp_path, overrides))
    assert [text for name, text in seen.facts if name == "Overrides"] == stated

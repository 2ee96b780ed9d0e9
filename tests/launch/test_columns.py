"""Tables of thousands of lines: aligned, the last column free."""

from __future__ import annotations

import io

from rich.console import Console

from repro.launch.columns import columns


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = columns(("row", "n", "why"), [("a", "10", ""), ("long-row", "5", "because")], right=("n",))
    assert text.plain.splitlines() == [
        "row        n  why",
        "a         10",
        "long-row   5  because",
    ]


def test_wide_characters_count_as_two_cells_and_markup_is_text() -> None:
    text = columns(("a", "b"), [("漢", "[red]x[/]"), ("xxx", "y")])
    assert text.plain.splitlines()[1:] == ["漢   [red]x[/]", "xxx  y"]


def test_states_are_coloured_where_they_stand() -> None:
    text = columns(("row", "state"), [("failed", "done"), ("b", "failed")], styles={"failed": "red"})
    coloured = [(text.plain[span.start : span.end], span.style) for span in text.spans if span.style == "red"]
    # A row of that name is coloured as well: columns knows texts only.
    assert coloured == [("failed", "red"), ("failed", "red")]


def test_long_lines_are_not_folded() -> None:
    out = io.StringIO()
    Console(file=out, width=20).print(columns(("row",), [("x" * 50,)]), soft_wrap=True)
    assert out.getvalue().splitlines()[1] == "x" * 50

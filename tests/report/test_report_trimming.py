"""Columns that say one thing are named below a table, with all that they said."""

from __future__ import annotations

from repro.report.trimming import said_once
from repro.report.view import NOTHING, Cell, Column


def quiet(text: str) -> Cell:
    return Cell(text, tone="quiet")


def test_what_goes_and_what_stays() -> None:
    columns = [Column("", "Row"), *(Column(name, "measured") for name in ("a", "b", "c", "d", "e", "f", "g"))]
    columns.append(Column("", "runs"))
    other, no_speed_up, good = quiet("other scale"), Cell("no speed-up", "m", "quiet"), Cell("reproduced", tone="good")
    by_column = [
        [Cell("x"), Cell("y"), Cell("z")],
        [Cell(), Cell(), Cell()],
        [other, Cell(), other],
        [Cell("1.0"), Cell("2.0", "e"), Cell()],
        [Cell("1.0"), Cell("2.0", "e"), Cell()],
        [quiet("off"), quiet("on"), quiet("on")],
        [no_speed_up, no_speed_up, Cell()],
        [good, good, Cell()],
        [quiet("done"), quiet("done"), quiet("done")],
    ]
    lines = list(zip(*by_column, strict=True))
    assert said_once(columns, lines, NOTHING) == {
        1: "nothing in any row",
        2: "other scale where anything is said",
        4: "as c measured in every row",
        5: "on where anything is said; off: x",
    }, "numbers, marks, colours and columns without a metric stay"


def test_a_verdict_stays_beside_its_value() -> None:
    columns = [Column("", "Row"), *(Column("time", head) for head in ("measured", "verdict"))]
    for word in ("above on CPU", "reproduced on CPU", "below on CPU", "undecided"):
        assert said_once(columns, [[Cell("x"), Cell("1.0"), quiet(word)], [Cell("y"), Cell(), Cell()]], NOTHING) == {}
    assert said_once(columns, [[Cell("x"), Cell("1.0"), quiet("other scale")]], NOTHING) == {
        2: "other scale where anything is said"
    }


def test_three_words_stay_and_one_of_several_columns_of_a_metric_does() -> None:
    columns = [Column("", "Row"), *(Column(group, head) for group in "ab" for head in ("measured", "verdict"))]
    lines = [[Cell(word), Cell(word), quiet(word), Cell(word), quiet(word)] for word in ("1", "2", "3")]
    assert said_once(columns, lines, NOTHING) == {}

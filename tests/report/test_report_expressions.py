"""The language of claims: small, safe, and right about all that an interval holds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.report.expressions import ExpressionError, Interval, exact, parse

CELL = {"cell": 1}
NO_NAMES: frozenset[str] = frozenset()


def value(text: str, **cells: float | tuple[float, float] | None) -> float | tuple[float, float] | bool | None:
    """What an expression comes to; an exact number, which is an interval of no width, as that number."""
    known = {
        name: None if cell is None else Interval(*cell) if isinstance(cell, tuple) else exact(cell)
        for name, cell in cells.items()
    }
    found = parse(text, CELL, frozenset({"tolerance"})).value({"cell": known.__getitem__}, {"tolerance": 0.5})
    if not isinstance(found, Interval):
        return found
    return found.low if found.low == found.high else tuple(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abs(cell('a') - 3) * 2 / 4 + 1", 2.0),
        ("cell('a') > 0 and not cell('b') >= 3", True),
        ("0 < cell('a') <= cell('b') + tolerance", True),
        ("max(cell('a'), cell('b'), -1) < min(5, 4)", True),
        ("cell('gone') > 1 or cell('a') > 0", True),
        ("cell('gone') > 1 and cell('a') < 0", False),
        ("cell('gone') > 1 or cell('a') < 0", None),
        ("1 < 0 < cell('gone')", False),
        ("max(cell('a'), cell('gone')) > 0", None),
        ("not cell('gone') > 0", None),
    ],
)
def test_expressions_by_hand(text: str, expected: float | bool | None) -> None:
    assert value(text, a=1.0, b=2.0, gone=None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cell('i') + cell('j')", (-3.0, 6.0)),
        ("cell('i') - cell('j')", (-5.0, 4.0)),
        ("cell('i') * cell('j')", (-4.0, 8.0)),
        ("-cell('i')", (-2.0, 1.0)),
        ("cell('i') / (cell('j') + 3)", (-1.0, 2.0)),
        ("abs(cell('i'))", (0.0, 2.0)),
        ("abs(cell('i') - 3)", (1.0, 4.0)),
        ("max(cell('i'), 0)", (0.0, 2.0)),
        ("min(cell('i'), cell('j'))", (-2.0, 2.0)),
        ("0 * cell('all')", 0.0),
        ("cell('i') < 3", True),
        ("cell('i') > 2", False),
        ("cell('i') >= 2", None),
        ("cell('i') >= -1", True),
        ("cell('i') > -1", None),
        ("cell('i') < 0", None),
        ("cell('i') < 0 or cell('i') < 3", True),
        ("cell('i') < 0 and cell('i') > 2", False),
        ("cell('all') > 0", None),
        ("abs(cell('all')) < 0", False),
        ("80.2 - 80.0 <= 0.2", True),  # in binary it is a little more
    ],
)
def test_intervals_by_hand(text: str, expected: tuple[float, float] | bool | None) -> None:
    found = value(text, i=(-1.0, 2.0), j=(-2.0, 4.0), all=(-math.inf, math.inf))
    assert found == pytest.approx(expected) if isinstance(expected, tuple | float) else found is expected


def test_dividing_by_what_may_be_nothing_decides_nothing() -> None:
    for by in ((-1.0, 2.0), (0.0, 0.0)):
        assert value("1 / cell('i')", i=by) == (-math.inf, math.inf)
        assert value("1 / cell('i') > 0", i=by) is None
        assert value("1 / cell('i') > 0 or 1 > 0", i=by) is True


ends = st.tuples(st.floats(-100, 100), st.floats(-100, 100)).map(sorted).map(tuple)


@given(ends, ends, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["+", "-", "*"]), st.sampled_from(["<", ">="]))
def test_what_is_said_of_an_interval_is_so_of_all_in_it(
    one: tuple[float, float], other: tuple[float, float], here: float, there: float, sign: str, compared: str
) -> None:
    inside = [low + share * (high - low) for (low, high), share in ((one, here), (other, there))]
    text = f"cell('a') {sign} cell('b') {compared} 7"
    said = value(text, a=one, b=other)
    if said is not None:
        number = value(f"cell('a') {sign} cell('b')", a=inside[0], b=inside[1])
        assert isinstance(number, float)
        if abs(number - 7) > 1e-6:
            assert (number < 7 if compared == "<" else number >= 7) is said


def test_chances_to_be_right_and_to_be_wrong() -> None:
    counts = {
        "cell('a') > 0": (1, 1),
        "cell('a') > 0 or cell('b') > 0 or cell('c') > 0": (3, 1),
        "cell('a') > 0 and cell('b') > 0": (1, 2),
        "(cell('a') > 0 or cell('b') > 0) and (cell('c') > 0 or cell('d') > 0 or cell('e') > 0)": (3, 2),
        "not (cell('a') > 0 and cell('b') > 0)": (2, 1),
        "0 < cell('a') < cell('b')": (1, 2),
        "not 0 < cell('a') < cell('b')": (2, 1),
        "max(cell('a'), cell('b'), cell('c')) > 1": (3, 3),
        "abs(1 - min(cell('a'), cell('b'), 0)) > 1 or cell('c') > 0": (3, 2),
        "max(0, cell('a')) > 1": (1, 1),
    }
    for text, expected in counts.items():
        parsed = parse(text, CELL, NO_NAMES)
        assert (parsed.chances, parsed.risks) == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "cell.__class__",
        "[cell('a') for x in ()]",
        "cell('a')[0]",
        "lambda: 1",
        "cell('a') if 1 else 2",
        "cell(*('a',))",
        "cell(name='a')",
        "cell('a', 'b')",
        "cell(1)",
        "open('x')",
        "2 ** 9 ** 9",
        "'words'",
        "True",
        "x",
        "cell('a') == 1",
        "(y := 1)",
        "f'{cell}'",
        "max()",
        "abs(1, 2)",
        "not cell('a')",
        "(cell('a') > 0) + 1",
        "cell('a') and cell('b') > 0",
        "1 +",
        "",
    ],
)
def test_anything_else_is_refused_before_it_is_evaluated(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text, CELL, NO_NAMES)


@given(st.text(max_size=40))
def test_no_text_escapes_the_language(text: str) -> None:
    try:
        parsed = parse(text, CELL, NO_NAMES)
    except ExpressionError:
        return
    assert all(call.function == "cell" for call in parsed.calls)

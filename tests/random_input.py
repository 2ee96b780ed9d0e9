"""Random input of readers: each gives an answer or an error of one line, never a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from repro.errors import UserError

random_input = settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SYNTAX = st.text(alphabet="a1.,:;=~+-*?!#%&|@$(){}[]<>'\"\\/ é", max_size=12)
TYPED = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
# Values that YAML, csv files and Hydra read in their own ways.
VALUES = st.one_of(
    st.sampled_from(["null", "true", "1", "0.5", "-1", "1e999", "nan", "[]", "{}", "a", "1,2", "glob(*)"]),
    st.sampled_from(["${seed}", "???", "2020-13-45", "0b_", "9" * 5000, "[" * 500, "&a {b: *a}", "!!binary x"]),
    st.sampled_from(["range(0,3,0)", "range(0,nan)", "range(9999999)", "int(a)", "sort(1,a)", "interval(0,1)"]),
    SYNTAX,
    TYPED,
)


def answer(read: Callable[[], object]) -> object:
    """What a reader returns, or the text of its error."""
    try:
        outcome = read()
    except UserError as error:
        outcome = str(error)
        lines = outcome.splitlines()
    else:
        lines = [""]
    assert len(lines) == 1, lines
    return outcome


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes of a file with a few of them changed, replaced by noise or cut off."""
    data = bytearray(whole)
    for position, byte in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=9)):
        data[position] = byte
    start, noise = draw(st.integers(0, len(data))), draw(st.binary(max_size=80))
    data[start : start + len(noise)] = noise
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@st.composite
def edited(draw: st.DrawFn, whole: bytes) -> bytes:
    """A text file with other values in it, or with damaged bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged(whole))
    parts = re.split(rb"([,:\n])", whole)
    for _ in range(draw(st.integers(1, 3))):
        parts[draw(st.integers(0, len(parts) - 1))] = draw(VALUES).encode()
    return b"".join(parts)

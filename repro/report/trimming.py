"""Columns that have no number and no verdict for any line: a reader is told their words once, below the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repro.report.verdicts import ABOVE, BELOW, REPRODUCED, UNDECIDED

if TYPE_CHECKING:
    from repro.report.view import Cell, Column

_MOST_WORDS = 2  # of a column that goes
_OF_A_VALUE = (REPRODUCED, ABOVE, BELOW, UNDECIDED)  # what a reader wants to see beside it, `on CPU` too


def said_once(columns: Sequence[Column], lines: Sequence[Sequence[Cell]], nothing: str) -> dict[int, str]:
    """The columns that need no place of their own, by their index, and what each says in all of these lines.

    That is nothing at all, or one or two words without a colour (`other scale`) of which none is a verdict on a value,
    or what a column before it says line by line, where it is the only one of its metric. Columns of no group always
    stay.

    Args:
        lines: a cell for each column, the first of them what the line is called.
        nothing: the words of a cell without a value.
    """
    found: dict[int, str] = {}
    groups = [column.group for column in columns]
    for index, column in enumerate(columns):
        if not column.group:
            continue
        said = [(line[0].text, line[index]) for line in lines if line[index].text != nothing]
        words = Counter(cell.text for _, cell in said)
        if not said:
            found[index] = "nothing in any row"
        elif len(words) <= _MOST_WORDS and not any(_has_its_place(cell) for _, cell in said):
            most, *others = (word for word, _ in words.most_common())
            but = [f"{word}: {', '.join(row for row, cell in said if cell.text == word)}" for word in others]
            found[index] = "; ".join([f"{most} where anything is said", *but])
        elif groups.count(column.group) == 1:
            alike = _alike(columns[:index], lines, index, found)
            if alike is not None:
                found[index] = f"as {alike.title} in every row"
    return found


def _has_its_place(cell: Cell) -> bool:
    return cell.tone != "quiet" or bool(cell.mark) or cell.text.startswith(_OF_A_VALUE)


def _alike(
    before: Sequence[Column], lines: Sequence[Sequence[Cell]], index: int, gone: Mapping[int, str]
) -> Column | None:
    """A column of these, of those that stay, that says what the one at `index` does."""
    words = [(line[index].text, line[index].mark) for line in lines]
    for other, column in enumerate(before):
        stays = bool(column.group) and other not in gone
        if stays and words == [(line[other].text, line[other].mark) for line in lines]:
            return column
    return None

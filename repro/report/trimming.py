"""Columns that say one thing in every line: a reader is told it once, below the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.report.view import Cell, Column


def said_once(columns: Sequence[Column], lines: Sequence[Sequence[Cell]], nothing: str) -> dict[int, str]:
    """The columns that need no place of their own, by their index, and what each says in all of these lines.

    That is nothing at all, or one word without a colour (`other scale`) where it says anything, or what a column
    before it says line by line, where it is the only one of its metric. Columns of no group always stay.

    Args:
        nothing: the words of a cell without a value.
    """
    found: dict[int, str] = {}
    groups = [column.group for column in columns]
    for index, column in enumerate(columns):
        if not column.group or not lines:
            continue
        cells = [line[index] for line in lines]
        said = {(cell.text, cell.mark, cell.tone) for cell in cells if cell.text != nothing}
        if not said:
            found[index] = "nothing in any row"
        elif len(said) == 1 and next(iter(said))[1:] == ("", "quiet"):
            found[index] = f"{next(iter(said))[0]}, in every row that has one"
        elif groups.count(column.group) == 1:
            for before in range(index):
                is_same = all(_words(line[before]) == _words(line[index]) for line in lines)
                if is_same and columns[before].group and before not in found:
                    found[index] = f"as {columns[before].title}, in every row"
                    break
    return found


def _words(cell: Cell) -> tuple[str, str]:
    return cell.text, cell.mark

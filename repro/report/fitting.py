"""Select the columns that fit in a terminal or on a page, and compute their widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.report.grid import Column, Entry, Grid
from repro.tables.rows import Row

_TEXT_WIDTH_PT = 397.0  # of a NeurIPS page: 5.5 in
_GAP_PT = 5.0
_DIGIT_PT, _LETTER_PT = 3.9, 4.5  # of \scriptsize, rounded up
_LEAST_PT = 22.0  # width of a word of four capital letters


def columns_that_fit(columns: Sequence[Column], widths: Sequence[float], room: float) -> list[int]:
    """Return the indices of the columns that fit, in ascending order; columns with the least weight are dropped."""
    by_weight = sorted(range(len(columns)), key=lambda place: (-columns[place].weight, place))
    chosen: list[int] = []
    for place in by_weight:
        if widths[place] <= room:
            chosen.append(place)
            room -= widths[place]
    return sorted(chosen)


def longest_word(text: str) -> int:
    """Return the number of characters of the longest word, since headers are broken only between words."""
    return max(map(len, text.split()), default=0)


@dataclass(frozen=True)
class LatexGrid(Grid):
    """A grid of the columns that fit on a page, with their widths and the titles of the omitted columns."""

    widths_pt: tuple[float, ...]
    left_out: tuple[str, ...]
    gap_pt: float = _GAP_PT


def latex_grid(grid: Grid) -> LatexGrid:
    """Choose the columns of a grid that fit the text width of a NeurIPS page. Rows are printed with short names."""
    names = [short_name(row) for section in grid.sections for row in section.rows]
    widths = [
        max(_LEAST_PT, _LETTER_PT * longest_word(column.title), _DIGIT_PT * max(map(_characters, column.entries)))
        for column in grid.columns
    ]
    room = _TEXT_WIDTH_PT - _LETTER_PT * max(map(len, names))
    places = columns_that_fit(grid.columns, [width + _GAP_PT for width in widths], room)
    left_out = tuple(column.title for place, column in enumerate(grid.columns) if place not in places)
    chosen = tuple(grid.columns[place] for place in places)
    return LatexGrid(grid.head, grid.sections, chosen, tuple(round(widths[place], 1) for place in places), left_out)


def short_name(row: Row) -> str:
    """Return a row's name without its backbone, which is printed as the section label."""
    return row.id.removeprefix(f"{row.backbone}/")


def _characters(entry: Entry) -> int:
    upper = len(entry.text) + len(entry.mark) + len(entry.symbol)
    return max(upper, len(entry.published) + len(entry.published_mark))

"""How wide a table is once LaTeX has set it: its paper is made that wide, and its heads are broken into lines."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repro.report.view import View

COLUMN_GAP_PT = 8.0  # twice \tabcolsep
_MARGINS_MM = 24.0
_MM_PER_PT = 25.4 / 72.27
_A3_ACROSS_MM = 420  # claims and notes want as much, however narrow the table is
_STEP_MM = 10
_FEWEST_PT = 44.0  # of a head's line
_BOLD = 1.2
# Computer Modern's letters at 8 pt, each rounded up: a column that is a little wider than it has to be does no harm.
_NARROW, _NARROW_PT = frozenset("ijltfr.,;:'`|!()[]{}/- "), 3.4
_WIDE, _WIDE_PT = frozenset("mwMW%@+±<>~^=#&×÷−≤≥…—"), 8.8  # the signs that cells may hold
_CAPITAL_PT, _USUAL_PT = 6.8, 4.8
_LAST_LATIN = 0x100  # what comes after is written as its code point, `U+6F22`


@dataclass(frozen=True)
class Heads:
    """A table's heads as LaTeX sets them, and the width of the paper that holds it.

    Attributes:
        groups: the upper line: the lines of each group's words (none for no group) and the columns under it.
        heads: the lines of each column's head.
        paper_mm: in steps of a centimetre, at least A3's longer side.
    """

    groups: tuple[tuple[tuple[str, ...], int], ...]
    heads: tuple[tuple[str, ...], ...]
    paper_mm: int


def heads_of(seen: View) -> Heads:
    """The heads of a view's table, no wider than they have to be."""
    lines = [line for section in seen.sections for line in section.lines]
    widths, heads = [], []
    for index, column in enumerate(seen.columns):
        cells_pt = max((text_pt(line[index].text) + text_pt(line[index].mark) for line in lines), default=0.0)
        heads.append(broken(column.head, max(cells_pt, _FEWEST_PT)))
        widths.append(max(cells_pt, *map(text_pt, heads[-1])))
    groups, start = [], 0
    for group, span in seen.spans:
        own_pt = sum(widths[start : start + span]) + COLUMN_GAP_PT * (span - 1)
        words = broken(group, max(own_pt, _FEWEST_PT)) if group else ()
        # What a group's words need beyond its columns goes to the last of them.
        widths[start + span - 1] += max(0.0, max(map(text_pt, words), default=0.0) - own_pt)
        groups.append((words, span))
        start += span
    table_pt = sum(widths) + COLUMN_GAP_PT * (len(widths) - 1)
    table_pt = max([table_pt, *(_BOLD * text_pt(section.label) for section in seen.sections)])
    paper_mm = math.ceil((table_pt * _MM_PER_PT + _MARGINS_MM) / _STEP_MM) * _STEP_MM
    return Heads(tuple(groups), tuple(heads), max(paper_mm, _A3_ACROSS_MM))


def text_pt(text: str) -> float:
    """How wide a text is at most, in TeX's points, at 8 pt."""
    return sum(map(_char_pt, text))


def broken(text: str, room_pt: float) -> tuple[str, ...]:
    """A text in lines that fit into the room, as far as its words do."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_pt(longer) <= room_pt:
            lines[-1] = longer
        else:
            lines.append(word)
    return tuple(lines)


def _char_pt(char: str) -> float:
    if char in _NARROW:
        return _NARROW_PT
    if char in _WIDE:
        return _WIDE_PT
    if ord(char) >= _LAST_LATIN and char != "–":  # the dash of an empty cell
        return text_pt(f"U+{ord(char):04X}")
    return _CAPITAL_PT if char.isupper() else _USUAL_PT

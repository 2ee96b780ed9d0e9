"""A rendered table: cells in columns, columns in groups, rows in sections; independent of metrics and writers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from repro.report.format import NOTHING, symbol
from repro.tables.rows import Row


@dataclass(frozen=True)
class Entry:
    """A rendered cell.

    Attributes:
        text: the measured number, or other text.
        mark: footnote mark of `text`.
        published: the published number; empty in a cell with a single value.
        published_mark: footnote mark of the published number's kind.
        verdict: the verdict as text; empty if there is no published value.
        verdicts_in_text: verdicts whose symbols are part of `text`.
        tone: tone of the verdict or text: good, off, bad or quiet.
        tooltip: origin of the published number, and how the two numbers compare.
        source: name of the published number's source.
    """

    text: str = NOTHING
    mark: str = ""
    published: str = ""
    published_mark: str = ""
    verdict: str = ""
    tone: str = ""
    tooltip: str = ""
    source: str = ""
    verdicts_in_text: tuple[str, ...] = ()

    @property
    def symbol(self) -> str:
        """The symbol of the verdict."""
        return symbol(self.verdict) if self.verdict else ""

    @property
    def is_empty(self) -> bool:
        """Whether the cell has neither a measured nor a published number."""
        return self.text == NOTHING and not self.published


@dataclass(frozen=True)
class Column:
    """A column: its header, the group that it belongs to (empty for none), and an entry for each row.

    If not all columns fit, those with the lowest `weight` are dropped.
    """

    head: str
    entries: tuple[Entry, ...]
    group: str = ""
    is_numeric: bool = True
    weight: float = 0.0

    @property
    def title(self) -> str:
        """Group and header, for writers with a single header row."""
        return f"{self.group} {self.head}".strip()


@dataclass(frozen=True)
class Section:
    """Consecutive rows with a common label, that of their backbone."""

    label: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Grid:
    """A table: the header of its row names, sections of rows, and columns."""

    head: str
    sections: tuple[Section, ...]
    columns: tuple[Column, ...]

    @property
    def entries(self) -> Iterator[Entry]:
        """All entries, column by column."""
        return (entry for column in self.columns for entry in column.entries)

    @property
    def spans(self) -> tuple[tuple[str, int], ...]:
        """The upper header row: each group with its number of columns, without the column of row names."""
        return tuple((group, len(list(same))) for group, same in itertools.groupby(self.columns, lambda c: c.group))

    @property
    def is_grouped(self) -> bool:
        """Whether any column belongs to a group."""
        return any(column.group for column in self.columns)

    def is_start(self, place: int) -> bool:
        """Return whether a group of columns starts at this index."""
        return self.is_grouped and (place == 0 or self.columns[place].group != self.columns[place - 1].group)

    @property
    def lines(self) -> Iterator[tuple[Section, list[tuple[Row, tuple[Entry, ...]]]]]:
        """Yield each section with its rows, and for each row an entry per column."""
        start = 0
        for section in self.sections:
            places = range(start, start + len(section.rows))
            entries = (tuple(column.entries[place] for column in self.columns) for place in places)
            yield section, list(zip(section.rows, entries, strict=True))
            start += len(section.rows)

"""Tables of runs for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

MAX_ROWS = 300  # rich needs about 1 ms per row
UNITS_S = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def text_table(headers: Sequence[str], rows: Sequence[Sequence[str | Text]], right: Sequence[str] = ()) -> Table:
    """Build a table without borders. Columns named in `right` are right-aligned; only the last column may wrap."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        is_last = header == headers[-1]
        table.add_column(header, justify="right" if header in right else "left", no_wrap=not is_last, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def duration(seconds: float | None) -> str:
    """Format a duration with its two largest units (`3 d 4 h`, `2 h 5 min`, `40 s`); empty for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    parts = []
    for name, size in UNITS_S:
        count, whole = divmod(whole, size)
        parts.append((count, name))
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    shown = parts[first : first + 1] + [part for part in parts[first + 1 : first + 2] if part[0]]
    return " ".join(f"{count} {name}" for count, name in shown)


def state_counts(states: Iterable[str]) -> str:
    """Format the number of runs in each state: `3 done, 1 failed`."""
    return ", ".join(f"{number} {state}" for state, number in Counter(states).items())

"""Print a report in the terminal: the table, fitted to the terminal width, then claims, then the summary."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from repro.report.build import Report
from repro.report.claim_verdicts import JudgedClaim
from repro.report.fitting import columns_that_fit, longest_word, short_name
from repro.report.format import MARKS, NOTHING, tone
from repro.report.grid import Column, Entry, Grid
from repro.report.verdicts import AGREES, CONTRADICTS
from repro.report.view import View

_STYLES = {"good": "green", "off": "yellow", "bad": "bold red", "quiet": "dim"}
_GAP = 2  # characters between columns
_HEAD_LINES = 2


def print_view(seen: View, console: Console, *, is_wide: bool = False) -> None:
    """Print the table, the claims, and the summary.

    Columns that do not fit are omitted, those with the most verdicts last; published values are shown where they fit.
    Numbers are never truncated. `is_wide` prints every column regardless of the terminal width.
    """
    console.print(Text(seen.title, style="bold"))
    console.print(Text("; ".join(f"{name.lower()} {words}" for name, words in seen.facts[1:])))
    shown = [_print_grid(grid, console, is_wide=is_wide) for grid in (seen.wide if is_wide else seen.compact)]
    if verdicts := seen.legend(shown):
        marks = {entry.mark for grid in shown for entry in grid.entries if _is_marked(entry)}
        words = [f"{mark} {meaning}" for mark, meaning in verdicts]
        words += [seen.spread_legend(shown), *(f"{mark}: {MARKS[mark]}" for mark in sorted(marks & MARKS.keys()))]
        start = "" if is_wide else "(published value)  "
        console.print(Text(f"{start}{'; '.join(filter(None, words))}", style="dim"))
    print_claims(seen.claims, console)
    print_orderings(seen, console)
    print_summary(seen, console)


def print_claims(claims: Sequence[JudgedClaim], console: Console) -> None:
    """Print the claims, each starting with its verdict."""
    if not claims:
        return
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    grid.add_column("claims", no_wrap=True)
    grid.add_column("", overflow="fold")
    for judged in claims:
        grid.add_row(Text(judged.verdict, style=_STYLES[tone(judged.verdict)]), Text(judged.claim.statement))
    console.print(grid)


def print_orderings(seen: View, console: Console) -> None:
    """Print the published orderings that are decided, and the number of those that are not."""
    if not seen.orderings:
        return
    console.print(Text(f"{seen.ordering_heading}: {seen.ordering_count}"))
    grid = RichTable(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
    for judged in seen.orderings:
        if judged.verdict in (AGREES, CONTRADICTS):
            grid.add_row(
                Text(judged.verdict, style=_STYLES[tone(judged.verdict)]),
                Text(judged.ordering.name),
                Text(judged.evidence),
            )
    console.print(grid)


def print_summary(seen: View, console: Console) -> None:
    """Print the summary, contradictions first."""
    for line in seen.summary.lines:
        is_contradiction = line.startswith("Does not hold")
        console.print(Text(line, style=_STYLES["off"] if is_contradiction else ""))


def print_files(report: Report, reports_dir: Path, console: Console) -> None:
    """Print where the files are, and then how to open the page."""
    if report.pending:
        console.print(report.pending, soft_wrap=True, markup=False)
    if report.kept:
        console.print(report.kept, soft_wrap=True, markup=False)
    else:
        endings = Counter(path.suffix.removeprefix(".") for path in report.paths if path.parent == report.folder)
        counts = ", ".join(f"{n} {ending}" if n > 1 else ending for ending, n in endings.items())
        console.print(f"Files: {report.folder}/ ({counts})", soft_wrap=True, markup=False)
    page = reports_dir / "index.html"
    if page.is_file():
        console.print(f"Page: open {page.resolve().as_uri()} in a browser", soft_wrap=True, markup=False)


def _print_grid(grid: Grid, console: Console, *, is_wide: bool) -> Grid:
    """Print a table and return it with the columns for which there was room."""
    names = [short_name(row) for section in grid.sections for row in section.rows]
    labels = [section.label for section in grid.sections]
    first = max(len(grid.head), *map(len, labels), *(len(name) + 1 for name in names))
    plain = [_texts(column, has_published=False) for column in grid.columns]
    full = [_texts(column, has_published=True) for column in grid.columns]
    widths, full_widths = _widths(grid, plain), _widths(grid, full)
    places = list(range(len(grid.columns)))
    if not is_wide:
        places = columns_that_fit(grid.columns, [_GAP + width for width in widths], console.width - first)
    room = console.width - first - sum(_GAP + widths[place] for place in places)
    for place in sorted(places, key=lambda place: -grid.columns[place].weight):
        if is_wide or full_widths[place] - widths[place] <= room:
            room -= full_widths[place] - widths[place]
            plain[place], widths[place] = full[place], full_widths[place]
    _spread(room, widths, {place: grid.columns[place].title for place in places})
    # The box style adds a space between columns to the padding.
    printed = RichTable(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), show_edge=False, pad_edge=False)
    printed.add_column(grid.head, no_wrap=True, width=first)
    for place in places:
        is_numeric = grid.columns[place].is_numeric
        justify: JustifyMethod = "right" if is_numeric else "left"
        printed.add_column(Text(grid.columns[place].title), justify=justify, width=widths[place])
    lines = iter(range(len(names)))
    for section in grid.sections:
        printed.add_row(Text(section.label, style="bold"))
        for row in section.rows:
            line = next(lines)
            printed.add_row(Text(f" {short_name(row)}"), *(plain[place][line] for place in places))
    width, console.width = console.width, max(console.width, first + sum(_GAP + widths[place] for place in places))
    console.print(printed, crop=False)
    console.width = width
    left_out = [column.title for place, column in enumerate(grid.columns) if place not in places]
    if left_out:
        console.print(Text(f"no room for: {'; '.join(left_out)} (--wide)", style="dim"))
    return replace(grid, columns=tuple(grid.columns[place] for place in places))


def _spread(room: int, widths: list[int], titles: Mapping[int, str]) -> None:
    """Widen columns in place until no room is left or no header takes more than two lines."""

    def lines(place: int) -> int:
        return len(textwrap.wrap(titles[place], widths[place]))

    while room > 0 and titles and lines(tallest := max(titles, key=lines)) > _HEAD_LINES:
        widths[tallest] += 1
        room -= 1


def _is_marked(entry: Entry) -> bool:
    """Return whether a measured number is followed by a mark."""
    return bool(entry.mark) and entry.text not in ("", NOTHING)


def _widths(grid: Grid, texts: Sequence[Sequence[Text]]) -> list[int]:
    return [
        max(longest_word(column.title), *map(len, cells)) for column, cells in zip(grid.columns, texts, strict=True)
    ]


def _texts(column: Column, *, has_published: bool) -> list[Text]:
    """Format entries as `46.15 ✓`, or `46.15 (46.3) ✓` with the published value; the parts are aligned in the column.

    The mark of an estimate follows the number. A published value is always shown if there is no measured value, or if
    that contradicts it.
    """
    parts = []
    for entry in column.entries:
        is_shown = bool(entry.published) and (has_published or not entry.text or entry.tone in ("off", "bad"))
        published = f"({entry.published})" if is_shown else ""
        number = entry.text + (entry.mark if _is_marked(entry) else "")
        parts.append((NOTHING, "", "") if entry.is_empty else (number, published, entry.symbol))
    widths = [max(map(len, part), default=0) for part in zip(*parts, strict=True)]
    texts = []
    for entry, (number, published, mark) in zip(column.entries, parts, strict=True):
        aligned = [number.rjust(widths[0]) if column.is_numeric else number]
        aligned += [part.ljust(width) for part, width in ((published, widths[1]), (mark, widths[2])) if width]
        style = "dim" if entry.is_empty else "" if entry.tone == "good" else _STYLES.get(entry.tone, "")
        texts.append(Text(" ".join(aligned), style=style))
    return texts

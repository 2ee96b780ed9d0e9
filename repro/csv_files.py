"""Reading csv files as spreadsheets and other programs save them."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from repro.errors import UserError, count_of

_SEPARATORS = (",", ";", "\t")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark. Raises `UserError` for any other, or HTML."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if re.match(rb"\s*(<!doctype html|<html)", data, re.IGNORECASE):
        raise UserError(f"{path}: an HTML page; download the file again, logged in if necessary")
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} line {line}: not in UTF-8; save the file in UTF-8") from None


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the records of a csv file with a header, each with the number of its line; empty lines are skipped.

    Values are separated by commas, semicolons or tabs. Raises `UserError`, with the line, for a header without one of
    `columns` or with one twice, a record with more or fewer values than the header, and text that is not csv.
    """
    text = read_text(path)
    header = text.lstrip("\r\n").partition("\n")[0]
    lines = split_lines(path, text, max(_SEPARATORS, key=header.count))
    names = [name.strip() for name in next(lines, (1, []))[1]]
    if not names:
        raise UserError(f"{path}: an empty file; expected a header with {','.join(columns)}")
    if missing := [name for name in columns if name not in names]:
        near = difflib.get_close_matches(missing[0], names, n=1)
        found = f" (but {near[0]!r})" if near else ""
        raise UserError(f"{path}: no column {', '.join(missing)}{found}; expected a header with {','.join(columns)}")
    if repeated := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise UserError(f"{path}: two columns {repeated[0]!r} in the header; remove or rename one")
    for number, values in lines:
        if len(values) != len(names):
            raise UserError(f"{path} line {number}: {count_of(len(values), 'value')}, the header has {len(names)}")
        yield number, dict(zip(names, values, strict=True))


def split_lines(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of each line of csv text that is not empty, with its number; `path` is for errors."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for values in reader:
            if any(values):
                yield reader.line_num, values
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not csv ({error})") from None

"""Escape text for LaTeX and Markdown, so that every character of a name, a note or a reason appears literally."""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    '"': r"\textquotedbl{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line break (\\) it would start an optional argument
    "]": "{]}",
    "*": "{*}",
    "-": "{-}",  # two in a row would be typeset as a dash
    "–": "--",
    "—": "---",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "÷": r"\ensuremath{\div}",
    "−": r"\ensuremath{-}",
    "≤": r"\ensuremath{\le}",
    "≥": r"\ensuremath{\ge}",
    "°": r"\textdegree{}",
    "’": "'",
    "…": r"\ldots{}",
    "✓": r"\ensuremath{\checkmark}",
    "✗": r"\ensuremath{\otimes}",
    "▲": r"\ensuremath{\blacktriangle}",
    "▼": r"\ensuremath{\blacktriangledown}",
    "○": r"\ensuremath{\circ}",
}
_LATIN_LETTERS = range(0xC0, 0x100)  # every LaTeX installation can typeset these with T1 fonts


def latex(value: object) -> str:
    """Return `value` as LaTeX text. A character that LaTeX cannot typeset becomes its code point, `U+6F22`."""
    return "".join(_LATEX.get(char) or _latex_char(char) for char in str(value))


def _latex_char(char: str) -> str:
    if char.isspace():
        return " "
    if char.isascii() and char.isprintable():
        return char
    return char if ord(char) in _LATIN_LETTERS else f"U+{ord(char):04X}"


def markdown(value: object) -> str:
    """Return `value` as Markdown text for a table cell: without markup, HTML, cell separators or line breaks."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~\[\]])", r"\\\1", text)
    # An underscore within a word is literal in Markdown; escaping it would make row names hard to read.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)

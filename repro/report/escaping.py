"""Text for LaTeX and Markdown: whatever stands in a name, a note or a reason comes out as those very characters."""

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
    "[": "{[}",  # after the end of a line it would be an option
    "]": "{]}",
    "*": "{*}",
    "-": "{-}",  # two in a row would become a dash
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
}
_LATIN_LETTERS = range(0xC0, 0x100)  # what every LaTeX with T1 fonts can set


def latex(value: object) -> str:
    """`value` as LaTeX text. A character that plain LaTeX cannot set is named by its code point, not dropped."""
    return "".join(_LATEX.get(char) or _latex_char(char) for char in str(value))


def _latex_char(char: str) -> str:
    if char.isspace():
        return " "
    if char.isascii() and char.isprintable():
        return char
    return char if ord(char) in _LATIN_LETTERS else f"U+{ord(char):04X}"


def markdown(value: object) -> str:
    """`value` as Markdown text that can stand in a table: no markup, no HTML, no cell or line ends."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~\[\]])", r"\\\1", text)
    # Inside a word an underscore is only itself; escaping it there would make row names hard to read.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)

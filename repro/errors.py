"""Errors that a person causes: one line, what is valid, what to do next. Anything else is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; the command line prints it without a traceback and exits with 2."""


_MOST_LISTED = 60  # words: more than anybody reads


def did_you_mean(word: str, valid: Iterable[str], limit: int = 3) -> str:
    """The nearest valid words, as the end of a sentence; all of them when none is near, or how many they are.

    Example: `did_you_mean("svit", ["svite", "dense"])` is `"; nearest: svite"`.
    """
    names = sorted(set(valid))
    near = difflib.get_close_matches(word, names, n=limit, cutoff=0.5)
    if near:
        return f"; nearest: {', '.join(near)}"
    if len(names) > _MOST_LISTED:
        return f"; nothing like it is among {len(names)} valid ones"
    return f"; valid: {', '.join(names)}" if names else ""

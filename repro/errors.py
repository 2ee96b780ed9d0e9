"""Errors caused by users: one line that says what is valid and what to do next. Any other exception is a bug."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """An error that the user can fix. The command line prints it without a traceback and exits with 2."""


class UnreadableError(UserError):
    """A file of a data set cannot be read or decoded. A run may continue with another file."""


_MAX_LISTED = 60  # maximum number of valid words in a message


def did_you_mean(word: str, valid: Iterable[str], limit: int = 3) -> str:
    """Return the end of a message: the closest valid words or, if none is close, all of them (or their number).

    Example: `did_you_mean("svit", ["svite", "dense"])` is `"; nearest: svite"`.
    """
    names = sorted(set(valid))
    near = difflib.get_close_matches(word, names, n=limit, cutoff=0.5)
    if near:
        return f"; nearest: {', '.join(near)}"
    if len(names) > _MAX_LISTED:
        return f"; not similar to any of {len(names)} valid names"
    return f"; valid: {', '.join(names)}" if names else ""


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """Join names for a message, for example `a, b, c and 4 more`."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_disk_full(error: Exception) -> bool:
    """Return whether an error means that a disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that a GPU, or the host through torch's allocator, is out of memory."""
    is_torchs = any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__)  # without an import of torch
    on_host = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return is_torchs or on_host or isinstance(error, MemoryError)


def os_error_line(error: OSError, *, resumes: bool) -> str:
    """Return an error of the operating system as one line that says what to do next.

    `resumes` tells whether the command that failed trains runs, so that the same command resumes them.
    """
    if error.filename is None:
        line, advice = str(error.strerror or error), ""
    else:
        line, advice = f"{error.filename}: {error.strerror or error}", "; correct that, or give another path"
    if is_disk_full(error):
        advice = "; free some space and run the same command again"
        if resumes:
            advice += ", which resumes (rows of a table that have failed: with --retry)"
            advice += ", or choose another folder of runs"
    return line + advice


def count_of(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, by default with an s in the plural: `1 run`, `2,048 runs`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"

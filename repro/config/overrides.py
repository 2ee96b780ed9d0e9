"""Parses Hydra overrides: `recipe.epochs=100`, `+experiment=NAME`, `~method.finetune`.

Folders are taken literally. Hydra's grammar would refuse quotes, parentheses and non-ASCII characters in them, and
interpolate `${x}`.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException

from repro.errors import UserError
from repro.locations import expand_home

MAX_RUNS = 10_000  # in a sweep
RUNS_KEY = "run.root"
FOLDER_KEYS = ("data.root", RUNS_KEY)
_KEY = re.compile(r"(\+{0,2})([^=]+)=(.*)", re.DOTALL)
_BY_NAME = re.compile(r"\{(\s*\w+\s*:.*)\}", re.DOTALL)  # {imagenet: /a, kinetics400: /b}


@dataclass(frozen=True)
class Override:
    """One override. `key` is a config key or a group; `is_deletion` is True for `~key`."""

    key: str
    value: Any
    is_deletion: bool = False


@functools.lru_cache(maxsize=4096)  # rows of a table share most of their overrides
def parse_override(text: str) -> Override:
    """Parse an override of a single run. Raises `UserError` for a sweep or an invalid override."""
    folder = _folder_override(text)
    if folder is not None:
        return folder
    parsed = _parse(text)
    if parsed.is_sweep_override():
        raise UserError(f"{text}: a single run has one value for each key (sweeps: repro train -m; commas: quote it)")
    return Override(parsed.key_or_group, parsed.value(), parsed.is_delete())


def parse_list(text: str) -> list[str]:
    """Parse `key=[a,b]` and return its elements. Raises `UserError` for anything else."""
    value = _parse(text).value()
    if not isinstance(value, list):
        raise UserError(f"{text}: not a list; write {text.partition('=')[0]}=[a,b]")
    return [str(element) for element in value]


def split_sweep(overrides: Sequence[str], options: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the overrides of each run of a sweep, in Hydra's order: `a=1,2 b=3` has two runs.

    `options` maps each group to its options, for `method=glob(s*)`. Raises `UserError` for an invalid override, a sweep
    without values, and more than `MAX_RUNS` runs.
    """
    values = [_values(text, options) for text in overrides]
    if math.prod(map(len, values)) > MAX_RUNS:
        raise UserError(f"{' '.join(overrides)}: more than {MAX_RUNS:,} runs")
    return [list(run) for run in itertools.product(*values)]


def quoted(text: str) -> str:
    """Quote text, such as a folder name with spaces, quotes or commas, as the value of an override."""
    # Hydra reads backslashes literally, except before a quote.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def without_method(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that also apply to a run of another method."""
    return [text for text in overrides if not text.lstrip("+~").startswith(("method=", "method."))]


def _parse(text: str) -> HydraOverride:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{text!r}: not UTF-8; write it in UTF-8") from None
    try:
        parsed = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError, RecursionError):  # ValueError: an integer of 5,000 digits
        line = "\\n".join(text.splitlines())
        raise UserError(
            f"{line}: not an override; write key=value, and quote special characters in the value"
        ) from None
    if parsed.package is not None:
        raise UserError(f"{text}: a run has one {parsed.key_or_group}; leave out @{parsed.package}")
    return parsed


def _folder_override(text: str) -> Override | None:
    """Return the override of a folder key; None if `text` is an override of another key, or none at all."""
    match = _KEY.fullmatch(text)
    if match is None or match[2] not in FOLDER_KEYS:
        return None
    key, typed = match[2], match[3]
    by_name = _BY_NAME.fullmatch(typed)
    try:
        if by_name is None:
            return Override(key, _folder(typed))
        pairs = (part.partition(":") for part in re.split(r",(?=\s*\w+\s*:)", by_name[1]))
        return Override(key, {name.strip(): _folder(folder.strip()) for name, _, folder in pairs})
    except UserError as error:
        raise UserError(f"{key}={error}") from None


def _folder(typed: str) -> str | None:
    """Return a folder that was typed literally or quoted by `quoted`, with `~` expanded; None for `null`."""
    if typed == "null":
        return None
    if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "'\"":
        with suppress(UserError):
            typed = str(_parse(f"key={typed}").value())
    return expand_home(typed)


def _values(text: str, options: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the overrides that one word of a sweep stands for.

    A folder that exists is one value, whatever commas are in its name. So is `run.root`, which all runs share.
    """
    folder = _folder_override(text)
    is_one = folder is not None and isinstance(folder.value, str) and os.path.exists(folder.value)
    if folder is not None and (folder.key == RUNS_KEY or is_one):
        return [text]
    try:
        parsed = _parse(text)
    except UserError:
        if folder is not None:
            return [text]
        raise
    if not parsed.is_sweep_override():
        return [text]
    value, key, found = parsed.value(), parsed.get_key_element(), []
    if isinstance(value, Glob):
        found = value.filter(list(options.get(parsed.key_or_group, ())))
    elif parsed.is_discrete_sweep():
        with suppress(ValueError, ArithmeticError):  # a step of 0, or an end that is not a number
            found = list(itertools.islice(parsed.sweep_string_iterator(), MAX_RUNS + 1))
    if not found:
        raise UserError(f"{text}: no values; write {parsed.key_or_group}=a,b,c")
    return [f"{key}={one}" for one in found]

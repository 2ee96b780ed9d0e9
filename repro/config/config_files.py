"""Checks of config files before Hydra reads them, whose own errors would name neither the file nor the nearest name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING
from omegaconf.errors import OmegaConfBaseException

from repro.errors import UserError, did_you_mean
from repro.locations import CONF_DIR, config_dirs, groups

_GLOBAL = "# @package _global_"  # the header of a file that sets keys of other sections
_HEADER = re.compile(r"(?:\s*(?:#.*)?\n)*?#\s*@package\s+(\S+)")  # in the comments at the top
_BRACES = re.compile(r"\{[^}\n]*\$\{")  # {epochs: ${x}}, which YAML cannot read
_MAIN = "config.yaml"


def check_files(choices: Iterable[str]) -> list[Path]:
    """Check the files of options (`method/svite`) and those that their defaults lists name; return the user's own.

    Raises `UserError` for the first error.
    """
    for file in (folder / _MAIN for folder in config_dirs()):
        if file.is_file() and not file.samefile(CONF_DIR / _MAIN):
            raise UserError(f"{file}: not read, because {CONF_DIR / _MAIN} has the same name; rename the file")
    waiting, files = list(choices), dict[str, Path]()
    while waiting:
        choice = waiting.pop()
        found = [file for folder in config_dirs() if (file := folder / f"{choice}.yaml").is_file()]
        if found and choice not in files:
            if any(not file.samefile(found[0]) for file in found):
                raise UserError(f"{found[-1]}: not read, because {found[0]} has the same name; rename the file")
            files[choice] = found[0]
            waiting += _defaults(found[0], _content(found[0]))
    return [file for file in files.values() if CONF_DIR not in file.parents]


def file_that_sets(key: str, choices: Mapping[str, str]) -> str:
    """Return which of the user's own files sets a key, as the start of a message; empty if none does."""
    for file in check_files("/".join(choice) for choice in choices.items()):
        inside = key if _is_global(file) else key.removeprefix(f"{file.parent.name}.")
        if inside in dict(_entries(_content(file))):
            return f"{file}: "
    return ""


def interpolation_error(
    error: OmegaConfBaseException, values: Container[str], choices: Mapping[str, str], section: str = ""
) -> str:
    """Return a message for an interpolation that cannot be resolved, in `section` if the error does not name its key.

    `values` are the keys that overrides set.
    """
    key = error.full_key or section
    text = str(error).splitlines()[0].rpartition("while resolving interpolation: ")[2].strip("\"'")
    place = f"{'' if key in values else file_that_sets(key, choices)}{key}: " if key else ""
    return f"{place}{text}; correct it, or write a value"


def _content(file: Path) -> dict[Any, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; save it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise UserError(f"{file}: starts with a byte order mark; save it as UTF-8 without one")
    try:
        content = yaml.safe_load(text)
        entries = list(_entries(content)) if isinstance(content, dict) else []
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        advice = '; in braces, quote it: {key: "${other}"}' if _BRACES.search(str(error)) else ""
        raise UserError(f"{file}: {text}{advice}") from None
    if not isinstance(content, dict | None):
        raise UserError(f"{file}: must contain keys and their values")
    if file.parent.name == "experiment" and not text.lstrip().startswith(_GLOBAL):
        raise UserError(f"{file}: must start with the line `{_GLOBAL}`")
    if "hydra" in (content or {}):
        raise UserError(f"{file}: hydra: Hydra's own settings are not used; remove them")
    _check_package(file, text)
    ignores_missing = _is_global(file) or "defaults" in (content or {})  # otherwise it means: set it in an override
    for key, value in entries:
        if value == MISSING and ignores_missing:
            raise UserError(f"{file}: {key}: {MISSING} would be ignored; write a value, or remove the key")
    return content or {}


def _is_global(file: Path) -> bool:
    return file.read_text(encoding="utf-8").lstrip().startswith(_GLOBAL)


def _check_package(file: Path, text: str) -> None:
    """Raise `UserError` if a header puts the keys of a file where its group does not look for them."""
    header, group = _HEADER.match(text), file.parent.name
    if header is not None and header[1] not in ("_global_", "_group_", group):
        raise UserError(f"{file}: {header[0].splitlines()[-1]}: the keys of a {group} are in {group}; remove that line")


def _entries(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key, with those that it is in (`recipe.epochs`), and its value."""
    for name, value in content.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _entries(value, f"{prefix}{name}.")


def _defaults(file: Path, content: dict[Any, Any]) -> Iterator[str]:
    """Yield the options that a defaults list names: `- svite`, `- /method/svite`, `- override /method: svite`."""
    entries = content.get("defaults") or []
    if not isinstance(entries, list):
        raise UserError(f"{file}: defaults: must be a list, such as `- override /method: svite`")
    for entry in entries:
        place, _, name = str(entry).rpartition("/")  # without a group: of the file's own
        for key, option in entry.items() if isinstance(entry, dict) else [(place, name)]:
            *flags, group = str(key).partition("@")[0].split() or [""]
            group = group if group.startswith("/") else f"/{file.parent.name}/{group}".rstrip("/")
            options = groups().get(group[1:])
            if option == "_self_" or "${" in f"{group}{option}":
                continue
            if options is None:
                valid = [f"/{name}" for name in groups()]
                raise UserError(f"{file}: defaults: no group {group!r}{did_you_mean(group, valid)}")
            if str(option) not in options and "optional" not in flags:
                valid = [*options, "_self_"]
                raise UserError(f"{file}: defaults: no {group[1:]} {option!r}{did_you_mean(str(option), valid)}")
            is_choice = isinstance(entry, dict) and "override" not in flags and "@" not in str(key)
            if is_choice and group != "/experiment":
                raise UserError(f"{file}: defaults: every run has a {group[1:]}; write `override {group}: {option}`")
            yield f"{group[1:]}/{option}"

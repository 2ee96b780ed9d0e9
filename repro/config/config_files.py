"""Checks of config files before Hydra reads them, whose own errors would name neither the file nor the nearest name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from repro.errors import UserError, did_you_mean
from repro.locations import CONF_DIR, config_dirs, groups

_GLOBAL = "# @package _global_"  # the header of a file that sets keys of other sections


def check_files(choices: Iterable[str]) -> list[Path]:
    """Check the files of options (`method/svite`) and those that their defaults lists name; return the user's own.

    Raises `UserError` for the first error.
    """
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
        is_global = file.read_text(encoding="utf-8").lstrip().startswith(_GLOBAL)
        inside = key if is_global else key.removeprefix(f"{file.parent.name}.")
        if OmegaConf.select(OmegaConf.load(file), inside, throw_on_resolution_failure=False) is not None:
            return f"{file}: "
    return ""


def _content(file: Path) -> dict[Any, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; save it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise UserError(f"{file}: starts with a byte order mark; save it as UTF-8 without one")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise UserError(f"{file}: must contain keys and their values")
    if file.parent.name == "experiment" and not text.lstrip().startswith(_GLOBAL):
        raise UserError(f"{file}: must start with the line `{_GLOBAL}`")
    if "hydra" in (content or {}):
        raise UserError(f"{file}: hydra: Hydra's own settings are not used; remove them")
    return content or {}


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
            yield f"{group[1:]}/{option}"

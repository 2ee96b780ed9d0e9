"""Composes the config groups with Hydra, and caches the results."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.config.config_files import check_files, file_that_sets, interpolation_error
from repro.config.overrides import FOLDER_KEYS, parse_override, quoted
from repro.errors import UserError
from repro.locations import CONF_DIR, config_dirs, groups

Choices = tuple[tuple[str, str], ...]  # pairs of a group and the chosen option


def compose_groups(choices: Mapping[str, str]) -> DictConfig:
    """Compose the default config with the chosen option of some groups; return a new, unresolved config.

    The result equals Hydra's own. Planning a table composes hundreds of rows that differ in few choices, and Hydra
    needs about 50 ms for each, so results are cached, and an option that sets only its own section is composed only
    once. Raises `UserError` for a config file that Hydra cannot compose.
    """
    composed: DictConfig = pickle.loads(_composed(tuple(sorted(choices.items())), config_dirs()))
    return composed


def hydra_overrides(overrides: Iterable[str]) -> list[str]:
    """Return overrides as Hydra's own command line takes them, preceded by the search path."""
    found = []
    for text in overrides:
        override = parse_override(text)
        is_folder = override.key in FOLDER_KEYS and isinstance(override.value, str)
        found.append(f"{override.key}={quoted(override.value)}" if is_folder else text)
    return [*_search_path(config_dirs()), *found]


def hydra_section(overrides: Iterable[str]) -> str:
    """Return Hydra's own section of a config, `hydra: ...`, as YAML."""
    config = _hydra("config", hydra_overrides(overrides), (), return_hydra_config=True)
    return OmegaConf.to_yaml(OmegaConf.masked_copy(config, "hydra"))


@functools.lru_cache(maxsize=1024)
def _composed(choices: Choices, folders: tuple[Path, ...]) -> bytes:
    # Pickled, because copying an OmegaConf config takes nine times as long.
    sections: dict[str, DictConfig] = {}
    if not any(group == "experiment" for group, _ in choices):  # an experiment can set keys of any section
        found = {group: own_section(group, option, folders) for group, option in choices}
        sections = {group: section for group, section in found.items() if section is not None}
    others = tuple(choice for choice in choices if choice[0] not in sections)
    composed = OmegaConf.create(compose_with_hydra(others, folders))
    for group, section in sections.items():
        composed[group] = section
    for group in groups():
        try:
            section = composed.get(group)
        except OmegaConfBaseException as error:
            raise UserError(f"config: {interpolation_error(error, (), dict(choices), group)}") from None
        if group != "experiment" and not OmegaConf.is_dict(section):
            place = file_that_sets(group, dict(choices))
            raise UserError(f"config: {place}{group}={section!r}: must contain keys and their values")
    return pickle.dumps(composed)


@functools.lru_cache(maxsize=256)
def compose_with_hydra(choices: Choices, folders: tuple[Path, ...]) -> DictConfig:
    """Compose the default config with these choices. The result is cached, so it must not be modified."""
    return _hydra("config", [f"{group}={option}" for group, option in choices], folders)


@functools.cache
def own_section(group: str, option: str, folders: tuple[Path, ...]) -> DictConfig | None:
    """Return the section that an option sets; None if it sets other sections too, or if other options set this one."""
    if group not in ("method", "launcher", "tracker"):  # other sections are set by several groups: a scale chooses data
        return None
    try:
        alone = _hydra(f"{group}/{option}", [], folders)
    except UserError:  # it overrides an option of another group
        return None
    return alone[group] if list(alone) == [group] else None


def _hydra(config_name: str, overrides: list[str], folders: tuple[Path, ...], **options: Any) -> DictConfig:
    choices = [config_name, *(text.replace("=", "/", 1) for text in overrides)]
    own = check_files(choice for choice in choices if choice.partition("/")[0] in groups())
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return hydra_compose(config_name, [*_search_path(folders), *overrides], **options)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split()).partition(" Config search path:")[0]
        if isinstance(error, RecursionError):
            text = "defaults: names itself, directly or through other files; remove one of the entries"
        raise UserError(f"{', '.join(map(str, own)) or 'config'}: {text}") from None


def _search_path(folders: Iterable[Path]) -> list[str]:
    """Return the override that makes Hydra also look for options in the user's own folders, if there are any."""
    own = [quoted(f"file://{folder}") for folder in folders if folder != CONF_DIR]
    return [f"hydra.searchpath=[{','.join(own)}]"] if own else []

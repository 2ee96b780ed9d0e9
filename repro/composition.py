"""From Hydra overrides to a `Config`: composed by Hydra, all errors in one message.

`compose` is the only way. What a row says and what the user overrides go in as Hydra overrides.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from repro import method_options
from repro.config import Config, Data
from repro.cross_checks import cross_checks
from repro.errors import UserError, did_you_mean

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"
_ITSELF = "_self_"  # a file's own place in its defaults list


def compose(overrides: Iterable[str] = ()) -> Config:
    """The config of one run from Hydra overrides (`backbone=deit_small`, `method.sparsity=0.5`).

    Raises `UserError` that lists every wrong group, key and value at once, each with the nearest valid names.
    """
    errors: list[str] = []
    choices: dict[str, str] = {}
    values: dict[str, Any] = {}
    for text in overrides:
        parsed = _parse(text, errors)
        if parsed is None:
            continue
        key = parsed.key_or_group
        options = groups().get(key)
        if options is None:
            values[key] = parsed.value()
        elif parsed.value() in options:
            choices[key] = str(parsed.value())
        else:
            errors.append(f"{text}: no {key} {parsed.value()!r}{did_you_mean(str(parsed.value()), options)}")
    composed = _compose_groups(choices)
    if isinstance(values.get("data.root"), dict):  # a folder for each of several data sets
        values["data.root"] = _root_of(composed.data, values["data.root"], errors)
    errors += _apply(composed, values)
    return _validate(composed, errors)


def with_data(data: Data, words: Sequence[str]) -> Data:
    """`data` with overrides of it: `data.root=/data/imagenet`, `data=imagefolder`, which is other data.

    Images are normalised as before, where no word says otherwise: a model is used to it. Raises `UserError` as
    `compose` does.
    """
    named = [word for word in words if word.startswith("data=")]
    is_same = not named or named[-1] == f"data={data.name}"
    place = [f"data.root={quoted(data.root)}"] if is_same and data.root is not None else []
    composed = compose([*(named or [f"data={data.name}"]), *place, *(word for word in words if word not in named)]).data
    said = {word.partition("=")[0].removeprefix("data.") for word in words if word not in named}
    if is_same:
        return data.model_copy(update={key: getattr(composed, key) for key in said})
    return composed.model_copy(update={key: getattr(data, key) for key in ("mean", "std") if key not in said})


def quoted(text: str) -> str:
    """Text as the value of an override, whatever it holds: a folder's name may have spaces, quotes and commas in it."""
    # Backslashes mean themselves, except before a quote.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def needs_root(data: str) -> bool:
    """Whether a data set is on disk and somebody has to say where; generated ones have a place of their own."""
    return bool(OmegaConf.is_missing(_load_option("data", data), "root"))


def _root_of(data: DictConfig, roots: Mapping[Any, Any], errors: list[str]) -> str | None:
    """Where this data set is, of the folders that are given by the data sets' names."""
    known = groups()["data"]
    errors += [
        f"data.root: no data {str(name)!r}{did_you_mean(str(name), known)}" for name in roots if name not in known
    ]
    found = roots.get(data.name)
    if found is None and needs_root(data.name):
        errors.append(f"data.root: none for data={data.name}; say data.root={{{data.name}:/a/folder}}")
    return None if found is None else str(found)


def every_data(config: Config, overrides: Iterable[str]) -> list[Data]:
    """The data of a config, and all others that `data.root={imagenet: ..., kinetics400: ...}` has a folder for.

    The overrides are those that the config was composed of. Of the others only name and root are theirs.
    """
    said = [_parse(text, []) for text in overrides if text.startswith("data.root=")]
    roots = next((each.value() for each in reversed(said) if each is not None), None)
    if not isinstance(roots, dict):
        return [config.data]
    others = {str(name): root for name, root in roots.items() if name != config.data.name}
    return [
        config.data,
        *(
            config.data.model_copy(update={"name": name, "root": None if root is None else str(root)})
            for name, root in others.items()
        ),
    ]


@functools.cache
def groups() -> dict[str, tuple[str, ...]]:
    """The config groups and what each offers."""
    return {
        folder.name: tuple(sorted(path.stem for path in folder.glob("*.yaml")))
        for folder in sorted(CONF_DIR.iterdir())
        if folder.is_dir()
    }


def _parse(text: str, errors: list[str]) -> Override | None:
    try:
        parsed = _parse_cached(text)
    except HydraException:
        errors.append(f"{text}: not an override; write key=value")
        return None
    if parsed.is_delete() or parsed.is_sweep_override():
        errors.append(f"{text}: a single run takes plain key=value (sweeps: repro train -m)")
        return None
    return parsed


@functools.lru_cache(maxsize=4096)  # most overrides of a table are those of its other rows
def _parse_cached(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _compose_groups(choices: Mapping[str, str]) -> DictConfig:
    """What Hydra composes from these choices, as a config of its own: rows of a table share their choices."""
    composed: DictConfig = pickle.loads(_composed_groups(tuple(sorted(choices.items()))))
    return composed


@functools.lru_cache(maxsize=1024)
def _composed_groups(choices: tuple[tuple[str, str], ...]) -> bytes:
    """The same, pickled, a ninth of the time that OmegaConf takes for a copy; plain choices are put in after Hydra."""
    plain = {group: option for group, option in choices if _is_plain(group, option)}
    composed = OmegaConf.create(_compose_with_hydra(tuple(item for item in choices if item[0] not in plain)))
    for group, option in plain.items():
        composed[group] = _load_option(group, option)
    return pickle.dumps(composed)


@functools.lru_cache(maxsize=256)
def _compose_with_hydra(choices: tuple[tuple[str, str], ...]) -> DictConfig:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = hydra_compose("config", [f"{group}={option}" for group, option in choices])
    OmegaConf.set_struct(composed, False)
    return composed


@functools.cache
def _read_option(group: str, option: str) -> DictConfig:
    found = OmegaConf.load(CONF_DIR / group / f"{option}.yaml")
    assert isinstance(found, DictConfig)
    return found


@functools.cache
def _load_option(group: str, option: str) -> Any:
    """A plain option: what its file says, over those of its group that it begins with."""
    own = _read_option(group, option)
    if "defaults" not in own:
        return own
    *beginning, _ = own.defaults
    itself = OmegaConf.masked_copy(own, [str(key) for key in own if key != "defaults"])
    return OmegaConf.merge(*(_load_option(group, name) for name in beginning), itself)


@functools.cache
def _is_plain(group: str, option: str) -> bool:
    """Whether choosing this option is the same as putting its file in its group's place.

    That is so where the file has no package of its own, begins with nothing but plain options of its group, and no
    other file says anything about the group.
    """
    path = CONF_DIR / group / f"{option}.yaml"
    if group in _groups_set_elsewhere() or re.search(r"^# *@package", path.read_text(encoding="utf-8"), re.MULTILINE):
        return False
    *beginning, last = _read_option(group, option).get("defaults", [_ITSELF])
    return last == _ITSELF and all(name in groups()[group] and _is_plain(group, name) for name in beginning)


@functools.cache
def _groups_set_elsewhere() -> frozenset[str]:
    found: set[str] = set()
    for path in [CONF_DIR / "config.yaml", *CONF_DIR.glob("*/*.yaml")]:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"override /(\w+)", text))
        if path.parent == CONF_DIR or re.search(r"^# *@package", text, re.MULTILINE):
            found |= set(re.findall(r"^(\w+):", text, re.MULTILINE))
    return frozenset(found)


def _apply(composed: DictConfig, values: Mapping[str, Any]) -> list[str]:
    errors = []
    model_keys = [f"model.{name}" for name in composed.backbone.local]
    known = {*model_keys, *(key for key, _ in _leaves(OmegaConf.to_container(composed)))}
    for key, value in values.items():
        if key not in known:
            errors.append(f"{key}: no such key{did_you_mean(key, known)}")
        elif key not in model_keys:
            OmegaConf.update(composed, key, value, merge=False)
    # The model starts as a copy of one of the backbone's geometries, which may have been overridden themselves.
    composed.model = OmegaConf.to_container(composed.model, resolve=True)
    for key in model_keys:
        if key in values:
            OmegaConf.update(composed, key, values[key], merge=False)
    return errors


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict) or not node:
        yield prefix, node
        return
    for key, child in node.items():
        yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))


def _validate(composed: DictConfig, errors: list[str]) -> Config:
    for key, value in _leaves(OmegaConf.to_container(composed)):
        if value == MISSING:
            errors.append(f"{key}: needs a value ({key}=...)")
            OmegaConf.update(composed, key, None)
    name, said = composed.data.name, {text.partition(":")[0] for text in errors}
    if composed.data.root is None and "data.root" not in said and name in groups()["data"] and needs_root(name):
        errors.append(f"data.root=null: data={name} needs the folder that holds train/ and val/; set data.root")
    try:
        resolved: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(_message([*errors, str(error).splitlines()[0]])) from None
    unsettled = method_options.settle(resolved["method"])
    errors += unsettled
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        said = {text.partition("=")[0] for text in errors}
        errors += [
            f"{key}={item['input']!r}: {item['msg'].lower()}"
            for item in error.errors()
            if (key := _key(item["loc"], resolved)) not in said
        ]
        raise UserError(_message(errors)) from None
    if not unsettled:  # what does not fit a wrong value says nothing
        errors += cross_checks(config)
    if errors:
        raise UserError(_message(errors))
    return config


def _key(place: tuple[int | str, ...], resolved: Any) -> str:
    """The key as it is written in an override.

    pydantic puts which of several classes a section is (the launcher's name, a geometry's architecture) into the path
    of its fields: what the config does not have and is not the last part is such a word.
    """
    node, parts = resolved, []
    for index, part in enumerate(place, start=1):
        if isinstance(node, dict) and part not in node and index < len(place):
            continue
        parts.append(str(part))
        node = node.get(part) if isinstance(node, dict) else None
    return ".".join(parts)


def _message(errors: list[str]) -> str:
    if len(errors) == 1:
        return f"config: {errors[0]}"
    return f"config: {len(errors)} errors\n" + "\n".join(f"  {error}" for error in errors)

"""Composes the `Config` of a run from Hydra overrides, and reports all errors in one message."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from repro.config import Config, Data, method_options
from repro.config.checks import cross_checks
from repro.config.config_files import file_that_sets, interpolation_error
from repro.config.data_roots import needs_root, root_of
from repro.config.groups import compose_groups, own_section
from repro.config.overrides import FOLDER_KEYS, parse_override, quoted
from repro.config.site import GROUPS as SITE_GROUPS
from repro.config.site import site_defaults
from repro.errors import UserError, count_of, did_you_mean, first_few
from repro.locations import config_dirs, expand_home, groups

SectionT = TypeVar("SectionT", bound=BaseModel)
_OPTIONAL = "experiment"  # the only group of which a run needs no option


def compose(overrides: Iterable[str] = ()) -> Config:
    """Compose the config of one run from Hydra overrides (`backbone=deit_small`, `method.sparsity=0.5`).

    Site defaults (`repro.config.site`) apply to keys that no override sets. Raises one `UserError` that lists every
    invalid group, key and value, with the nearest valid names.
    """
    errors: list[str] = []
    choices, values, deleted = _split(overrides, errors)
    defaults = site_defaults()
    composed = compose_groups({**{group: defaults[group] for group in SITE_GROUPS if group in defaults}, **choices})
    if composed.model is None:
        raise UserError(
            f"config: scale={composed.scale.name}: backbone={composed.backbone.name} is not run at this scale"
        )
    values = {**_site_values(composed, defaults), **values}
    if isinstance(values.get("data.root"), dict):
        try:
            values["data.root"] = root_of(composed.data.name, values["data.root"])
        except UserError as error:
            values["data.root"] = None
            errors += str(error).splitlines()
    # Folders are set only after resolution, so that `${x}` in their names is not interpolated.
    folders = {key: values[key] for key in FOLDER_KEYS if isinstance(values.get(key), str)}
    try:
        errors += _apply(composed, {**values, **dict.fromkeys(folders, "")}, deleted)
        return _validate(composed, folders, errors, lambda key: "" if key in values else file_that_sets(key, choices))
    except OmegaConfBaseException as error:  # for example, an interpolation of a key that does not exist
        raise UserError(_message([*errors, interpolation_error(error, values, choices)])) from None


def with_data(data: Data, overrides: Sequence[str]) -> Data:
    """Apply overrides to a data section: `data.root=/data/imagenet`, or `data=imagefolder` for another data set.

    Another data set gets the normalisation of `data`, with which the model was trained, unless an override sets it.
    Raises `UserError` as `compose` does.
    """
    chosen = [text for text in overrides if text.startswith("data=")]
    others = [text for text in overrides if text not in chosen]
    is_same = not chosen or chosen[-1] == f"data={data.name}"
    root = [f"data.root={quoted(data.root)}"] if is_same and data.root is not None else []
    composed = compose([*(chosen or [f"data={data.name}"]), *root, *others]).data
    set_keys = {text.partition("=")[0].removeprefix("data.") for text in others}
    if is_same:
        return functools.reduce(lambda section, key: _with_key_of(composed, section, key), sorted(set_keys), data)
    return composed.model_copy(update={key: getattr(data, key) for key in ("mean", "std") if key not in set_keys})


def _with_key_of(other: SectionT, section: SectionT, key: str) -> SectionT:
    """Return `section` with the value that `key` (`root`, `clip.frame_step`) has in `other`."""
    name, _, inner = key.partition(".")
    value = getattr(other, name)
    if inner:
        value = _with_key_of(value, getattr(section, name), inner)
    return section.model_copy(update={name: value})


def _split(overrides: Iterable[str], errors: list[str]) -> tuple[dict[str, str], dict[str, Any], list[str]]:
    """Split overrides into chosen options by group, values by key, and deleted keys; append errors to `errors`."""
    choices: dict[str, str] = {}
    values: dict[str, Any] = {}
    deleted: list[str] = []
    for text in overrides:
        try:
            override = parse_override(text)
        except UserError as error:
            errors.append(str(error))
            continue
        key, value = override.key, override.value
        options = groups().get(key)
        if override.is_deletion:
            deleted.append(key)
            values.pop(key, None)
            choices.pop(key, None)
        elif key == _OPTIONAL and value is None:
            choices.pop(key, None)
        elif options is None:
            values[key] = value
        elif value in options:
            choices[key] = str(value)
        else:
            errors.append(f"{text}: no {key} {value!r}{did_you_mean(str(value), options)}")
    return choices, values, deleted


def _site_values(composed: DictConfig, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the site defaults that apply to a config: not those of other launchers or data sets."""
    values = {}
    for key, value in defaults.items():
        section, _, name = key.partition(".")
        if key == "data.root":
            folder = value.get(composed.data.name) if isinstance(value, dict) else value
            if folder is not None and needs_root(composed.data.name):
                values[key] = expand_home(str(folder))
        elif name and name in composed[section]:
            values[key] = value
    return values


def _apply(composed: DictConfig, values: Mapping[str, Any], deleted: Iterable[str]) -> list[str]:
    """Set values and delete keys in place; return a message for each key that does not exist or cannot be deleted."""
    errors = []
    model_keys = [f"model.{name}" for name in composed.backbone.local]
    known = {*model_keys, *(key for key, _ in _leaves(OmegaConf.to_container(composed)))}
    for key, value in values.items():
        if key not in known:
            errors.append(f"{key}: no such key{_nearest(key, known)}")
        elif key not in model_keys:
            OmegaConf.update(composed, key, value, merge=False)
    if not isinstance(composed.model, DictConfig):
        return [*errors, f"model={composed.model!r}: not a model; set its keys, such as model.depth=6"]
    # `model` refers to one of the backbone's geometries. It is replaced by a copy, so that setting its keys does not
    # change the backbone.
    composed.model = OmegaConf.to_container(composed.model, resolve=True)
    for key in model_keys:
        if key in values:
            OmegaConf.update(composed, key, values[key], merge=False)
    for key in deleted:
        section, _, name = key.rpartition(".")
        parent = OmegaConf.select(composed, section) if section else composed
        if key == _OPTIONAL:
            continue
        if key in groups():
            errors.append(f"~{key}: every run needs one; choose another: {', '.join(groups()[key])}")
        elif isinstance(parent, DictConfig) and name in parent:
            with open_dict(parent):
                parent.pop(name)
        else:
            errors.append(f"~{key}: no such key{did_you_mean(key, known)}")
    return errors


def _nearest(key: str, known: Collection[str]) -> str:
    """Return the end of a message: the options that have the key, or the nearest group or key."""
    group, _, name = key.partition(".")
    having = [
        f"{group}={option}"
        for option in groups().get(group, ())
        if (section := own_section(group, option, config_dirs())) is not None
        and name in dict(_leaves(OmegaConf.to_container(section)))
    ]
    if having:
        return f"; only with {first_few(having)}"
    same_name = [each for each in known if each.endswith(f".{key}")]
    near = [] if name else difflib.get_close_matches(key, groups(), n=1, cutoff=0.7)
    return did_you_mean(key, near or same_name or known)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict) or not node:
        yield prefix, node
        return
    for key, child in node.items():
        yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))


def _validate(
    composed: DictConfig, folders: Mapping[str, str], errors: list[str], file_of: Callable[[str], str]
) -> Config:
    """Resolve and validate a config. Raises `UserError` with the given `errors` and those that it finds.

    `file_of` returns the user's own file that sets a key, as the start of a message.
    """
    for key, value in _leaves(OmegaConf.to_container(composed)):
        if value == MISSING:
            if key not in _keys(errors):
                errors.append(f"{key}: needs a value ({key}=...)")
            OmegaConf.update(composed, key, None)
    data = composed.data
    if (
        data.get("root") is None
        and "data.root" not in _keys(errors)
        and data.name in groups()["data"]
        and needs_root(data.name)
    ):
        errors.append(f"data.root=null: data={data.name} needs the folder that holds train/ and val/; set data.root")
    resolved: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    for key, folder in folders.items():
        section, _, name = key.partition(".")
        resolved[section][name] = folder
    option_errors = method_options.apply_declarations(resolved["method"])
    errors += option_errors
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        reported = _keys(errors)
        for item in error.errors():
            if (key := _key(item["loc"], resolved)) not in reported:
                errors.append(file_of(key) + _message_of(key, item, resolved))
        raise UserError(_message(errors)) from None
    errors += [f"{file_of(key)}{key}={text}: a number is expected" for key, text in _booleans(resolved, config)]
    if not option_errors:  # the checks would report an invalid option a second time
        errors += cross_checks(config)
    if errors:
        raise UserError(_message(errors))
    return config


def _booleans(resolved: Mapping[str, Any], config: Config) -> Iterator[tuple[str, str]]:
    """Yield the key and the value of each number that is set to a boolean, which pydantic takes for 0 or 1."""
    validated = dict(_leaves(config.model_dump(mode="json")))
    for key, value in _leaves(resolved):
        if _has_boolean(value) and not _has_boolean(validated.get(key, value)):
            yield key, str(value).lower()


def _has_boolean(value: Any) -> bool:
    return any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value]))


def _keys(errors: Iterable[str]) -> set[str]:
    """Return the keys that messages start with: `recipe.epochs=-1: ...`, `data.root: ...`."""
    return {text.partition(":")[0].partition("=")[0] for text in errors}


def _message_of(key: str, error: Mapping[str, Any], resolved: dict[str, Any]) -> str:
    if error["type"] == "missing":
        return f"{key}: needs a value ({key}=...)"
    if error["type"] == "extra_forbidden":
        section, _, name = key.rpartition(".")
        valid = [other for other in OmegaConf.select(OmegaConf.create(resolved), section, default={}) if other != name]
        return f"{key}: no such key{did_you_mean(name, valid)}"
    return f"{key}={error['input']!r}: {error['msg'].lower()}"


def _key(location: tuple[int | str, ...], resolved: Any) -> str:
    """Return the location of a pydantic error as the key of an override.

    For a discriminated union, pydantic adds the tag (the launcher's name, a geometry's architecture) to the location.
    It is recognised as a word before the last one that is no key of the config.
    """
    node, parts = resolved, []
    for index, part in enumerate(location, start=1):
        if isinstance(node, dict) and part not in node and index < len(location):
            continue
        parts.append(str(part))
        node = node.get(part) if isinstance(node, dict) else None
    return ".".join(parts)


def _message(errors: list[str]) -> str:
    if len(errors) == 1:
        return f"config: {errors[0]}"
    return f"config: {count_of(len(errors), 'error')}\n" + "\n".join(f"  {error}" for error in errors)

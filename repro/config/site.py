"""Defaults of a site or a user, read from `repro.yaml` or from the file in REPRO_CONFIG.

  data.root: {imagenet: /data/imagenet, kinetics400: /data/kinetics400}
  run.root: /scratch/me/runs
  launcher.partition: gpu
  launcher.account: my_project

The file may contain only settings that cannot change a result. Rows, experiments and the command line override them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from repro.config.launcher import InlineLauncher, LocalLauncher, SlurmLauncher
from repro.config.sections import Run, Tracker
from repro.errors import UserError, did_you_mean
from repro.locations import expand_home, groups, in_home
from repro.typed_files import load_yaml

VARIABLE = "REPRO_CONFIG"
SECTIONS: Mapping[str, tuple[type[BaseModel], ...]] = {
    "run": (Run,),
    "launcher": (InlineLauncher, LocalLauncher, SlurmLauncher),
    "tracker": (Tracker,),
}
GROUPS = ("launcher", "tracker")
TYPES: Mapping[str, Any] = {
    **dict.fromkeys(GROUPS, str),
    "data.root": str | dict[str, str],
    "data.workers": NonNegativeInt,
    **{
        f"{section}.{name}": Annotated[field.annotation, field]
        for section, models in SECTIONS.items()
        for model in models
        for name, field in model.model_fields.items()
        if name != "name"  # `launcher: slurm` chooses it
    },
}


def site_file() -> Path | None:
    """Return the file of site defaults; None if there is none, or if REPRO_CONFIG is empty.

    Raises `UserError` if the file in REPRO_CONFIG does not exist.
    """
    variable = os.environ.get(VARIABLE)
    if variable is not None:
        file = Path(expand_home(variable)) if variable else None
        if file is not None and not file.is_file():
            raise UserError(f"{VARIABLE}={variable}: no such file")
        return file
    places = (Path("repro.yaml"), *in_home(".config/repro.yaml"))
    return next((place for place in places if place.is_file()), None)


def site_defaults() -> Mapping[str, Any]:
    """Return the defaults by key. The keys `launcher` and `tracker` choose options of these groups.

    Raises `UserError` for an unknown key, option or data set, and for an invalid value.
    """
    file = site_file()
    return {} if file is None else _read(file.absolute(), file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(file: Path, _: int) -> Mapping[str, Any]:
    content = load_yaml(file)[0]
    if not isinstance(content, dict | None):
        raise UserError(f"{file}: not a mapping of keys to values; write launcher.partition: gpu")
    defaults = dict(_flat(content or {}))
    for key, value in defaults.items():
        if key not in TYPES:
            raise UserError(f"{file}: {key}: not a site default{did_you_mean(key, TYPES)}")
        try:
            TypeAdapter(TYPES[key]).validate_python(value)
        except ValidationError as error:
            raise UserError(f"{file}: {key}={value!r}: {error.errors()[0]['msg'].lower()}") from None
        group = key if key in GROUPS else "data"
        names = [value] if key in GROUPS else value if key == "data.root" and isinstance(value, dict) else ()
        for name in names:
            if name not in groups()[group]:
                raise UserError(f"{file}: no {group} {name!r}{did_you_mean(str(name), groups()[group])}")
    for key in ("data.root", "run.root"):
        if isinstance(defaults.get(key), str):
            defaults[key] = expand_home(defaults[key])
    return defaults


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten one level of nesting: `launcher: {partition: gpu}` is `launcher.partition: gpu`."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and not prefix and "." not in key:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value

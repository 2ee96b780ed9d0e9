"""Folders of data sets: `data.root=/folder`, or `data.root={imagenet:/folder,kinetics400:/other}` for several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from repro.config.data import Data
from repro.config.groups import data_section
from repro.config.overrides import parse_override
from repro.config.run_config import Config
from repro.errors import UserError, did_you_mean
from repro.locations import groups

NO_FOLDER = "data.root=unused"  # for configs whose data sets are not read


def needs_root(data: str) -> bool:
    """Whether a data set needs `data.root`; generated ones have a default folder."""
    return bool(OmegaConf.is_missing(data_section(data), "root"))


def root_of(data: str, roots: Mapping[Any, Any]) -> str | None:
    """The folder of a data set among folders by data set. Raises `UserError` for unknown names or a missing folder."""
    known = groups()["data"]
    errors = [
        f"data.root: no data {str(name)!r}{did_you_mean(str(name), known)}" for name in roots if name not in known
    ]
    root = roots.get(data)
    if root is None and needs_root(data):
        errors.append(f"data.root: none for data={data}; set data.root={{{data}:/a/folder}}")
    if errors:
        raise UserError("\n".join(errors))
    return None if root is None else str(root)


def every_data(config: Config, overrides: Iterable[str]) -> list[Data]:
    """The data set of a config, then every other one that `data.root={...}` among its overrides has a folder for.

    Only name and root of the others are their own.
    """
    roots = [parse_override(text).value for text in overrides if text.startswith("data.root=")]
    if not roots or not isinstance(roots[-1], dict):
        return [config.data]
    others = {str(name): root for name, root in roots[-1].items() if name != config.data.name}
    return [
        config.data,
        *(
            config.data.model_copy(update={"name": name, "root": None if root is None else str(root)})
            for name, root in others.items()
        ),
    ]

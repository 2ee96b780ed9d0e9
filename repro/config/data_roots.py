"""The folders of data sets: `data.root=/folder`, or `data.root={imagenet:/folder,kinetics400:/other}` for several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from repro.config.overrides import parse_override
from repro.config.run_config import Config
from repro.config.sections import GENERATED, Data
from repro.errors import UserError, did_you_mean
from repro.locations import groups

NO_FOLDER = "data.root=unused"  # for a config that is composed only for its other values


def needs_root(data: str) -> bool:
    """Return whether `data.root` has to be set for a data set."""
    return data not in GENERATED


def root_of(data: str, roots: Mapping[Any, Any]) -> str | None:
    """Return the folder of a data set from a mapping of data sets to folders.

    Raises `UserError` for unknown names in the mapping, or if the data set needs a folder and has none.
    """
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
    """Return the data section of a config, then one for each other data set in the override `data.root={...}`.

    Those of other data sets are copies of the config's own, with another name and root.
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

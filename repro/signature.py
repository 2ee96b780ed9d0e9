"""The signature of a config: a hash of everything that can change a result."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

# Keys that cannot change a result. Everything else is part of the signature.
NOT_IN_SIGNATURE = (
    "run",
    "launcher",
    "tracker",
    "data.root",
    "data.workers",
    "backbone.paper",  # `model` says which geometry is trained
    "backbone.local",
    "backbone.training.beta_max",  # `method.weights` says which one is used
)
# Keys that are younger than some records. With these values a run does what was done before there were the keys, and
# has the signature that it had.
AS_BEFORE = {"data.decoder": "pil"}


def signature(resolved: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a resolved config, less `NOT_IN_SIGNATURE` and what is `AS_BEFORE`.

    Raises `TypeError` or `ValueError` for a value that JSON cannot hold exactly (an object, NaN, infinity).
    """
    return _hash(_kept(resolved))


def signatures(config: BaseModel, seeds: Iterable[int]) -> dict[int, str]:
    """The signature of a config with each of these seeds."""
    rest = _kept(config.model_dump(mode="json"))
    return {seed: _hash({**rest, "seed": seed}) for seed in seeds}


def _kept(resolved: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(json.dumps(resolved, allow_nan=False))
    for key in NOT_IN_SIGNATURE:
        *sections, last = key.split(".")
        functools.reduce(lambda node, name: node[name], sections, kept).pop(last, None)
    for key, before in AS_BEFORE.items():
        *sections, last = key.split(".")
        section = functools.reduce(lambda node, name: node[name], sections, kept)
        if section.get(last) == before:
            del section[last]
    return kept


def _hash(kept: Mapping[str, Any]) -> str:
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()

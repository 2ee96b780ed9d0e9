"""The cache folder for data that is generated locally."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from repro.config import Data
from repro.errors import UserError
from repro.locations import expand_home, in_home


def data_cache(data: Data) -> Path:
    """Return `data.root`, or the user's cache folder if it is null."""
    return user_cache() if data.root is None else Path(expand_home(data.root)).absolute()


def user_cache() -> Path:
    """Return `repro` in the user's cache folder (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "repro"
    if not (caches := in_home(".cache/repro")):
        raise UserError("no home folder for cached data (HOME is not set); set HOME or XDG_CACHE_HOME to a folder")
    return caches[0]


def source_digest(*modules: ModuleType) -> str:
    """Return 8 hex digits of the modules' source code, so that a changed generator writes to another path."""
    digest = blake2b(digest_size=4)
    for module in modules:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()

"""The cache folder for data that is generated locally."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from repro.config import Data


def data_cache(data: Data) -> Path:
    """Return `data.root`, or the user's cache folder if it is null."""
    return user_cache() if data.root is None else Path(data.root).expanduser().absolute()


def user_cache() -> Path:
    """Return `repro` in the user's cache folder (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "repro"


def source_digest(*modules: ModuleType) -> str:
    """Return 8 hex digits of the modules' source code, so that a changed generator writes to another path."""
    digest = blake2b(digest_size=4)
    for module in modules:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()

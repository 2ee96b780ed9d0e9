"""Where data that we make ourselves is kept, so that it is made once on a machine."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from repro.config import Data


def cache_folder(data: Data) -> Path:
    """`data.root`, or the user's."""
    return user_cache() if data.root is None else Path(data.root).expanduser().absolute()


def user_cache() -> Path:
    """`repro` in the user's cache folder (the XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "repro"


def version(*makers: ModuleType) -> str:
    """8 hex digits of the source of what makes the data: data made by other code has another name."""
    found = blake2b(digest_size=4)
    for maker in makers:
        assert maker.__file__ is not None
        found.update(Path(maker.__file__).read_bytes())
    return found.hexdigest()

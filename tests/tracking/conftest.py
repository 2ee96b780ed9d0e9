"""A clean client for each test: no key from this machine, and no service process left from another test's server."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import repro.tracking  # noqa: F401 (sets up the client's environment, before anything imports the client)


@pytest.fixture(autouse=True)
def fresh_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    import wandb

    gc.freeze()  # excludes existing objects from the collection below: torch alone takes 0.3 s
    yield
    if [child for child in psutil.Process().children() if child.name().startswith("wandb-core")]:
        wandb.teardown()
        with warnings.catch_warnings():  # the client does not wait for its service process to exit
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    gc.unfreeze()

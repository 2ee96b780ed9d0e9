"""The client as a user's: no key from the machine that tests, no service left from another test's server."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import repro.tracking  # noqa: F401 (sets up the client's environment, before anything imports the client)

with warnings.catch_warnings():  # declared with what pydantic has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import wandb_workspaces.workspaces  # noqa: F401


@pytest.fixture(autouse=True)
def fresh_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    import wandb

    gc.freeze()  # what is there by now need not be looked through again below: torch alone takes 0.3 s
    yield
    if [child for child in psutil.Process().children() if child.name().startswith("wandb-core")]:
        wandb.teardown()
        with warnings.catch_warnings():  # the client drops its service's process without waiting for its end
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    gc.unfreeze()

"""The W&B client process and its errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
import wandb

from repro.errors import UserError
from repro.tracking.mirror_file import one_line


def stop_client() -> None:
    """Kill the client's service process, so that this process does not wait for it when it exits."""
    for child in psutil.Process().children():
        if child.name().startswith("wandb-core"):
            child.kill()
    reset_client()


def reset_client() -> None:
    """Make the client forget all runs, since it remembers the id of a run that it failed to start or finish."""
    # If its service process is gone, `teardown` raises, or exits with the exit code of that process.
    with contextlib.suppress(ConnectionError, SystemExit):
        wandb.teardown()


@contextlib.contextmanager
def client_errors(what: str, advice: str = "") -> Iterator[None]:
    """Convert any error of the client into a one-line `UserError`: what failed, the error, and advice.

    The client's errors have no common base class, and a response that it cannot parse raises pydantic's.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the client exits if its service process has died
        raise UserError(f"{what} ({one_line(error)}){advice}") from None

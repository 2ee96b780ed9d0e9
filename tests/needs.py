"""Programs that some tests need: those are skipped without them, unless a variable demands that they run."""

from __future__ import annotations

import os

import pytest


def needs(name: str, program: str | None, demanded_by: str) -> pytest.MarkDecorator:
    """Skip where `program` is None; with `demanded_by`=1 in the environment run all the same, and fail."""
    is_demanded = os.environ.get(demanded_by) == "1"
    return pytest.mark.skipif(program is None and not is_demanded, reason=f"{name} is not installed")

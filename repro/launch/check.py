"""One finding of `repro doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it (empty where nothing is to be done)."""

    name: str
    verdict: Literal["pass", "warn", "fail"]
    found: str
    advice: str = ""

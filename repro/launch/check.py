"""A check of `repro doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from repro.config import Data


@dataclass(frozen=True)
class Check:
    """The result of a check. `advice` is empty if there is nothing to do."""

    name: str
    verdict: Literal["pass", "warn", "fail"]
    found: str
    advice: str = ""


def by_check_name(data: Sequence[Data]) -> dict[str, Data]:
    """Data sets by the name of their check: `data`, then `data kinetics400`."""
    return {f"data {each.name}" if number else "data": each for number, each in enumerate(data)}

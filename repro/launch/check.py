"""The result of one check of `repro doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from repro.config import Data


@dataclass(frozen=True)
class Check:
    """The result of a check: what was found, the verdict, and advice, which is empty if there is nothing to do."""

    name: str
    verdict: Literal["pass", "warn", "fail"]
    found: str
    advice: str = ""


def by_check_name(data: Sequence[Data]) -> dict[str, Data]:
    """Return the data sets by the name of their check: `data` for the first, `data kinetics400` for a further one."""
    return {f"data {each.name}" if number else "data": each for number, each in enumerate(data)}

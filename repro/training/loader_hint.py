"""Says once, in a line, that a training waits for its images, and what to set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from repro.config import Data
from repro.cores import cores_of_rank

LIMIT_PCT = 10.0  # of the time between two entries; below it, nothing that a person sets gains much
SHARDS = "pack the files into shards (repro shards)"


class LoaderHint:
    """A sink of metrics that tells a hint at the second entry in a row whose `loader_share_pct` is above the limit.

    The first may be that of workers that start. `hint` gives the line for a share.
    """

    def __init__(self, hint: Callable[[float], str], tell: Callable[[str], None]) -> None:
        self._hint, self._tell = hint, tell
        self._above = 0
        self.told: str | None = None

    def write(self, entry: Mapping[str, Any]) -> None:
        """Look at one entry."""
        share = entry.get("loader_share_pct")
        if share is None or self.told is not None:
            return
        self._above = self._above + 1 if share > LIMIT_PCT else 0
        if self._above == 2:
            self.told = self._hint(share)
            self._tell(self.told)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Nothing is held open."""


def loader_hint(share_pct: float, data: Data, decodes: bool, in_shards: bool, ranks_here: int) -> str:
    """What takes the time, and what to set. `decodes`: whether files are decoded while training.

    `ranks_here` is how many training processes share this one's cores.
    """
    mine = cores_of_rank(ranks_here)
    settings = []
    if decodes and data.workers < mine:
        settings.append(f"data.workers={mine} (now {data.workers}; {mine} cores for each process)")
    if decodes and data.clip is None and data.decoder == "pil":
        settings.append("data.decoder=fast")
    if decodes and data.clip is None and not in_shards:
        settings.append(SHARDS)
    if not decodes:
        settings.append("a larger recipe.micro_batch (images are in memory: what is left is putting batches together)")
    elif data.workers >= mine:
        settings.append("more cores for each process")
    return f"the loader took {share_pct:.0f} % of the time between two entries: {', or '.join(settings)}"

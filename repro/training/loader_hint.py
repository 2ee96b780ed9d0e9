"""Advice, once and in one line, if training waits for data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from repro.config import Data
from repro.cores import cores_of_rank
from repro.errors import count_of

LIMIT_PCT = 10.0  # share of the time between two log entries; below it, no setting gains much
SHARDS = "pack the files into shards (repro shards)"


class LoaderHint:
    """A metric sink that gives advice after two consecutive entries whose `loader_share_pct` exceeds the limit.

    One entry is not enough, because it may include the start-up of the workers.

    Args:
        advice: returns the line for a share in percent.
        log: receives that line, once.
    """

    def __init__(self, advice: Callable[[float], str], log: Callable[[str], None]) -> None:
        self._advice, self._log = advice, log
        self._consecutive = 0
        self.line: str | None = None

    def write(self, entry: Mapping[str, Any]) -> None:
        """Check one entry."""
        share_pct = entry.get("loader_share_pct")
        if share_pct is None or self.line is not None:
            return
        self._consecutive = self._consecutive + 1 if share_pct > LIMIT_PCT else 0
        if self._consecutive == 2:
            self.line = self._advice(share_pct)
            self._log(self.line)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Do nothing: no file is open."""


def loader_hint(
    share_pct: float, data: Data, decoder: str | None, is_random: bool, in_shards: bool, processes: int
) -> str:
    """Return a line that names the settings that would speed up loading.

    Args:
        decoder: the decoder of image files; None for other data.
        is_random: whether images are decoded or augmented during training.
        processes: number of training processes that share the cores of this machine.
    """
    cores = cores_of_rank(processes)
    settings = []
    if is_random and data.workers < cores:
        settings.append(f"data.workers={cores} (now {data.workers}; {count_of(cores, 'core')} for each process)")
    if decoder == "pil":
        settings.append("data.decoder=fast")
    if decoder is not None and not in_shards:
        settings.append(SHARDS)
    if not is_random:
        settings.append("a larger recipe.micro_batch (images are in memory; the time is spent collating batches)")
    elif data.workers >= cores:
        settings.append("more cores for each process")
    return f"loading took {share_pct:.0f} % of the time between two log entries; try {', or '.join(settings)}"

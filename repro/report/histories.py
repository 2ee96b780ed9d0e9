"""How the masks of runs moved: read from the lines of kind `masks` of their metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.config import Config, Method
from repro.report.evidence import Evidence
from repro.rows import Row
from repro.runs.record import Record, all_records

_DENSITY = "density/"


@dataclass(frozen=True)
class MaskHistory:
    """The mask updates of one run. `variant` says which options of the method differ from the row's, `""` for none.

    `options` are those of its weights; `progress` is the share of the training done at each entry, 0 at the start;
    `entries` are as they were logged.
    """

    row: Row
    variant: str
    options: Mapping[str, Any]
    progress: tuple[float, ...]
    entries: tuple[dict[str, Any], ...]

    def values(self, name: str) -> list[float] | None:
        """One number over training; None where the run does not log it."""
        if not self.entries or any(name not in entry for entry in self.entries):
            return None
        return [float(entry[name]) for entry in self.entries]

    @property
    def layer_density(self) -> dict[str, float]:
        """Density by layer after the last mask update, in the model's order."""
        last = self.entries[-1]
        return {key.removeprefix(_DENSITY): float(last[key]) for key in last if key.startswith(_DENSITY)}

    @property
    def moved(self) -> bool:
        """Whether masks changed after the start."""
        return len(self.entries) > 1


def read_histories(every: Sequence[Evidence]) -> Iterator[MaskHistory]:
    """The histories of the rows' finished runs of the lowest seed, in the rows' order: one for each variant.

    A variant is a run of the row with other options of its weights: only options are compared, so runs with
    another recipe or seed are not taken for one.

    Args:
        every: the rows' evidence. Records that belong to it need not be read to know what they are, which is what
            keeps a report of thousands of seeds short.
    """
    for evidence in every:
        if evidence.config.method.weights is None:
            continue
        found: dict[str, MaskHistory] = {}
        own = {run.path for run in evidence.runs.values() if run.path is not None}
        for path in _by_seed({record.path for record in all_records(evidence.folder)}):
            variant = "" if path in own else _variant(Record(path), evidence.config)
            if variant is None or variant in found or Record(path).result() is None:
                continue
            history = _read(Record(path), evidence, variant)
            if history is not None:
                found[variant] = history
        yield from (found[variant] for variant in sorted(found))


def _by_seed(paths: Iterable[Path]) -> list[Path]:
    """Lowest seed first: `seed2-...` before `seed10-...`."""
    return sorted(paths, key=lambda path: (int(re.sub(r"\D", "", path.name.partition("-")[0]) or 0), path.name))


def _variant(record: Record, own: Config) -> str | None:
    """What the record's options differ in; None where it is no variant."""
    config = record.config()
    if config.recipe != own.recipe or config.model != own.model or config.data.name != own.data.name:
        return None
    return _difference(config.method, own.method)


def _read(record: Record, evidence: Evidence, variant: str) -> MaskHistory | None:
    entries = tuple(record.metrics("masks"))
    if not entries:
        return None
    config = record.config() if variant else evidence.config
    assert config.method.weights is not None
    progress = tuple(entry["epoch"] / config.own_recipe.epochs for entry in entries)
    return MaskHistory(evidence.row, variant, config.method.weights.model_dump(), progress, entries)


def _difference(method: Method, own: Method) -> str | None:
    """The options of the weights that differ, as `growth=as_released`; None where anything else does."""
    if method.weights is None or own.weights is None:
        return None
    if method.model_copy(update={"weights": own.weights}) != own:
        return None
    ours, theirs = own.weights.model_dump(), method.weights.model_dump()
    return " ".join(f"{key}={theirs.get(key)}" for key in sorted(theirs | ours) if theirs.get(key) != ours.get(key))

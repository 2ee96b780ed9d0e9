"""How the masks of runs moved: read from the lines of kind `masks` of their metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.config import Config, Method
from repro.errors import UserError
from repro.report.evidence import Evidence
from repro.rows import Row
from repro.runs.record import Record, all_records
from repro.signature import signatures

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
        found: dict[str, MaskHistory] = {}
        for record, variant in _candidates(evidence):
            if isinstance(variant, str) and variant not in found and record.result() is not None:
                history = _read(record, evidence, variant)
                if history is not None:
                    found[variant] = history
        yield from (found[variant] for variant in sorted(found))


def unreadable(every: Sequence[Evidence]) -> list[UserError]:
    """Why records of the rows are passed over as variants: what is wrong with each, by the code of today."""
    return [why for evidence in every for _, why in _candidates(evidence) if isinstance(why, UserError)]


def _candidates(evidence: Evidence) -> Iterator[tuple[Record, str | UserError | None]]:
    """The row's records, the lowest seed first, each with its variant: None for no variant, or why nobody can tell."""
    if evidence.config.method.weights is None:
        return
    own = {run.path for run in evidence.runs.values() if run.path is not None}
    paths = _by_seed({record.path for record in all_records(evidence.folder)})
    seeds = {_seed(path) for path in paths if path not in own}
    # Runs as the row's own, of seeds that are not asked for: their names say so.
    known = signatures(evidence.config, seeds) if seeds else {}
    for path in paths:
        if path in own or path.name == f"seed{_seed(path)}-{known[_seed(path)][:8]}":
            yield Record(path), ""
            continue
        try:
            yield Record(path), _variant(Record(path), evidence.config)
        except UserError as error:  # often of an older version of the code, whose configs had other keys
            yield Record(path), error


def _by_seed(paths: Iterable[Path]) -> list[Path]:
    """Lowest seed first: `seed2-...` before `seed10-...`."""
    return sorted(paths, key=lambda path: (_seed(path), path.name))


def _seed(path: Path) -> int:
    return int(re.sub(r"\D", "", path.name.partition("-")[0]) or 0)


def _variant(record: Record, own: Config) -> str | None:
    """What the record's options differ in; None where it is no variant. Raises `UserError` for a config of old."""
    config = record.config()
    if config.recipe != own.recipe or config.model != own.model or config.data.name != own.data.name:
        return None
    return _difference(config.method, own.method)


def _read(record: Record, evidence: Evidence, variant: str) -> MaskHistory | None:
    entries = tuple(record.metrics("masks"))
    if not entries:
        return None
    layers = [{name for name in entry if name.startswith(_DENSITY)} for entry in entries]
    if any(names != layers[-1] for names in layers):
        raise UserError(f"{record.metrics_file}: lines of masks name different layers; remove those that do not belong")
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

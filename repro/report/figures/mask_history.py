"""How the masks of runs changed, read from the `masks` entries of their metrics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import multimode
from typing import Any

from repro.config import Config
from repro.config.signature import signatures
from repro.errors import UserError
from repro.report.evidence import Evidence
from repro.runs.record import Record, all_records
from repro.tables.rows import Row

_DENSITY = "density/"


@dataclass(frozen=True)
class MaskHistory:
    """The mask updates of one run.

    Attributes:
        variant: options of the weight method that differ from the row's; empty for none.
        options: all options of the weight method.
        progress: fraction of training done at each entry, 0 at the start.
        entries: entries as logged.
    """

    row: Row
    variant: str
    options: Mapping[str, Any]
    progress: tuple[float, ...]
    entries: tuple[dict[str, Any], ...]

    def values(self, name: str) -> list[float] | None:
        """Return the values of a metric over training; None if the run does not log it."""
        if not self.entries or any(name not in entry for entry in self.entries):
            return None
        return [float(entry[name]) for entry in self.entries]

    @property
    def layer_density(self) -> dict[str, float]:
        """Density by layer after the last mask update, in model order."""
        last = self.entries[-1]
        return {key.removeprefix(_DENSITY): float(last[key]) for key in last if key.startswith(_DENSITY)}

    @property
    def moved(self) -> bool:
        """Whether masks changed after the start."""
        return len(self.entries) > 1


def read_histories(every: Sequence[Evidence]) -> Iterator[MaskHistory]:
    """Yield the histories of finished runs in row order, one for each variant, that of the lowest seed.

    A variant is a run of the row with different options of the weight method. Runs that differ in anything else, such
    as the recipe or the seed, are not variants. Records that belong to the evidence are identified without reading
    them, which keeps a report of thousands of seeds fast.
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
    """Return the errors of records that are skipped because the current code cannot read their config."""
    return [why for evidence in every for _, why in _candidates(evidence) if isinstance(why, UserError)]


def _candidates(evidence: Evidence) -> Iterator[tuple[Record, str | UserError | None]]:
    """Yield the row's records, lowest seed first, with their variant: None if it is none, an error if it is unknown."""
    if evidence.config.method.weights is None:
        return
    own = {run.record.path for run in evidence.runs.values()}
    paths = _by_seed({record.path for record in all_records(evidence.folder)})
    seeds = {_seed(path) for path in paths if path not in own}
    # Runs with the row's own config but seeds that were not requested are recognised by their folder names.
    known = signatures(evidence.config, seeds) if seeds else {}
    for path in paths:
        if path in own or path.name == f"seed{_seed(path)}-{known[_seed(path)][:8]}":
            yield Record(path), ""
            continue
        try:
            yield Record(path), _variant(Record(path), evidence.config)
        except UserError as error:  # often from an older version of the code, with other config keys
            yield Record(path), error


def _by_seed(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by seed: `seed2-...` before `seed10-...`."""
    return sorted(paths, key=lambda path: (_seed(path), path.name))


def _seed(path: Path) -> int:
    return int(re.sub(r"\D", "", path.name.partition("-")[0]) or 0)


def _variant(record: Record, own: Config) -> str | None:
    """Return the weight options that differ from the row's, as `growth=as_released`; None if anything else differs.

    Raises `UserError` for a config that the current code cannot read.
    """
    config = record.config()
    if config.recipe != own.recipe or config.model != own.model or config.data.name != own.data.name:
        return None
    theirs, ours = config.method.weights, own.method.weights
    if theirs is None or ours is None or config.method.model_copy(update={"weights": ours}) != own.method:
        return None
    here, there = ours.model_dump(), theirs.model_dump()
    return " ".join(f"{key}={there.get(key)}" for key in sorted(there | here) if there.get(key) != here.get(key))


def _read(record: Record, evidence: Evidence, variant: str) -> MaskHistory | None:
    entries = tuple(record.metrics("masks"))
    if not entries:
        return None
    layers = [{name for name in entry if name.startswith(_DENSITY)} for entry in entries]
    if any(names != layers[-1] for names in layers):
        raise UserError(f"{record.metrics_file}: lines of masks name different layers; remove those that do not belong")
    config = record.config() if variant else evidence.config
    assert config.method.weights is not None
    progress = tuple(entry["epoch"] / config.effective_recipe.epochs for entry in entries)
    return MaskHistory(evidence.row, variant, config.method.weights.model_dump(), progress, entries)


def of_one_backbone(histories: Sequence[MaskHistory]) -> list[MaskHistory]:
    """Return the histories of the backbone with the most variants, then the most histories: one row for each method.

    A method is shown by a row with the most variants. Of several, it is the one at the sparsity that most methods
    share, so that methods are compared at the same sparsity, or the middle one if a method has none there.
    """
    variants = Counter(history.row.backbone for history in histories if history.variant)
    sizes = Counter(history.row.backbone for history in histories)
    backbone = max(sizes, key=lambda name: (variants[name], sizes[name]), default=None)
    counts = Counter(history.row for history in histories if history.row.backbone == backbone)
    candidates: dict[str, list[Row]] = {row.method: [] for row in counts}
    for row, count in counts.items():
        if count == max(other for one, other in counts.items() if one.method == row.method):
            candidates[row.method].append(row)
    by_method = [{row.arch_sparsity_pct for row in rows} for rows in candidates.values()]
    levels = sorted(multimode(level for levels in by_method for level in levels))
    shown = []
    for rows in candidates.values():
        row = next((row for row in rows if row.arch_sparsity_pct == levels[len(levels) // 2]), rows[len(rows) // 2])
        shown += [history for history in histories if history.row == row]
    return shown

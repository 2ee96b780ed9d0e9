"""How the masks of runs changed, read from the `masks` entries of their metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import multimode
from typing import Any

from repro.errors import UserError
from repro.report.evidence import Evidence
from repro.runs.record import Record
from repro.tables.rows import Row

_DENSITY = "density/"


@dataclass(frozen=True)
class MaskHistory:
    """The mask updates of one run.

    Attributes:
        progress: fraction of training done at each entry, 0 at the start.
        entries: entries as logged.
    """

    row: Row
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
    """Yield the history of the first finished seed of each row that has one.

    Raises `UserError` for damaged metrics.
    """
    for evidence in every:
        if evidence.config.method.weights is not None:
            histories = (_read(record, evidence) for record in evidence.finished.values())
            first = next(filter(None, histories), None)
            if first is not None:
                yield first


def _read(record: Record, evidence: Evidence) -> MaskHistory | None:
    entries = tuple(record.metrics("masks"))
    if not entries:
        return None
    layers = [{name for name in entry if name.startswith(_DENSITY)} for entry in entries]
    if any(names != layers[-1] for names in layers):
        raise UserError(f"{record.metrics_file}: lines of masks name different layers; remove those that do not belong")
    epochs = evidence.config.effective_recipe.epochs
    return MaskHistory(evidence.row, tuple(entry["epoch"] / epochs for entry in entries), entries)


def of_one_backbone(histories: Sequence[MaskHistory]) -> list[MaskHistory]:
    """Return the histories of the backbone with the most: one row for each method.

    It is the row at the sparsity that most methods share, so that methods are compared at the same sparsity, or the
    middle one if a method has none there. Rows with overrides of their own are chosen only if a method has no others.
    """
    if not histories:
        return []
    ((backbone, _),) = Counter(history.row.backbone for history in histories).most_common(1)
    by_method: dict[str, list[MaskHistory]] = {}
    for history in histories:
        if history.row.backbone == backbone:
            by_method.setdefault(history.row.method, []).append(history)
    candidates = [[one for one in own if not one.row.own_overrides] or own for own in by_method.values()]
    levels = sorted(multimode(level for own in candidates for level in {one.row.arch_sparsity_pct for one in own}))
    level = levels[len(levels) // 2]
    return [
        next((history for history in own if history.row.arch_sparsity_pct == level), own[len(own) // 2])
        for own in candidates
    ]

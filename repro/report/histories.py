"""How the masks of runs moved: read from the lines of kind `masks` of their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.config import Method
from repro.report.evidence import read_evidence
from repro.rows import Row, Table
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


def read_histories(
    table: Table, rows: Sequence[Row], scale: str, root: Path, overrides: Sequence[str] = ()
) -> Iterator[MaskHistory]:
    """The histories of the rows' finished runs of the lowest seed, in the rows' order: one for each variant.

    A variant is a run of the row with other options of its weights: only options are compared, so runs with
    another recipe or seed are not taken for one.
    """
    for row in rows:
        own = read_evidence(table.name, row, scale, [0], root, overrides, 0.0).config
        found: dict[str, MaskHistory] = {}
        for record in all_records(root / table.name / row.id / scale):
            if record.result() is None:
                continue
            config = record.config()
            if config.recipe != own.recipe or config.model != own.model or config.data.name != own.data.name:
                continue
            variant = _difference(config.method, own.method)
            history = _read(record, row, config.method, variant, config.own_recipe.epochs)
            if variant is not None and history is not None:
                found.setdefault(variant, history)  # records come in the order of seeds
        yield from (found[variant] for variant in sorted(found))


def _read(record: Record, row: Row, method: Method, variant: str | None, epochs: int) -> MaskHistory | None:
    entries = tuple(record.metrics("masks"))
    if variant is None or not entries:
        return None
    assert method.weights is not None
    progress = tuple(entry["epoch"] / epochs for entry in entries)
    return MaskHistory(row, variant, method.weights.model_dump(), progress, entries)


def _difference(method: Method, own: Method) -> str | None:
    """The options of the weights that differ, as `growth=as_released`; None where anything else does."""
    if method.weights is None or own.weights is None:
        return None
    if method.model_copy(update={"weights": own.weights}) != own:
        return None
    ours, theirs = own.weights.model_dump(), method.weights.model_dump()
    return " ".join(f"{key}={theirs.get(key)}" for key in sorted(theirs | ours) if theirs.get(key) != ours.get(key))

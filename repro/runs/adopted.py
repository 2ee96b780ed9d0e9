"""Adopted weights: a file that others have trained, checked to be a row's model and evaluated on its data set.

The folder `<root>/<table>/<row>/weights/<sha8>/` is named by the file's SHA-256, and by a digest of the settings of the
evaluation if they are not the default ones (`<sha8>-<digest8>`). It contains

    adopted.json          where the file comes from, what was checked, and its accuracy
    config.yaml           the config that it was evaluated with, as in a run record
    weights.safetensors   the nonzero weights, so that `repro export` and `repro eval` do not need the original file

Adopted weights are a separate kind of evidence: they come from no training of this project, so they have no seed and
never replace a run.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from repro.config.published_training import PUBLISHED_SCALE
from repro.errors import UserError
from repro.files import write_json
from repro.runs.schemas import Percent
from repro.runs.validation import read_validated

SCHEMA = 1
FOLDER, FILE = "weights", "adopted.json"
_ADOPT_AGAIN = "remove its folder, and adopt the file again"


@dataclass(frozen=True)
class WeightsFile:
    """The file that was adopted, and which of its contents were taken."""

    name: str
    sha256: str
    origin: str  # where the file comes from, as text for a reader
    key: str = ""  # the key of the state dict in the file; empty if the file is a state dict
    is_ema: bool = False
    epoch: int | None = None  # the last epoch of its training, from 0; None if the file does not state it


@dataclass(frozen=True)
class RowCheck:
    """One comparison of the weights with the plan of the row, as text for a reader."""

    what: str
    found: str
    planned: str
    tolerance: str


@dataclass(frozen=True)
class AdoptedWeights:
    """The contents of adopted.json."""

    table: str
    row: str
    scale: str  # the scale whose model the weights fit
    file: WeightsFile
    checks: tuple[RowCheck, ...]
    data: Mapping[str, Any]  # name, number of images, and whether they are ImageNet's complete validation set
    # One accuracy, or one for each evaluation of a model that samples.
    top1_by_draw_pct: Annotated[tuple[Percent, ...], Field(min_length=1)]
    overrides: tuple[str, ...] = ()  # the overrides by which its config differs from the row's
    notes: tuple[str, ...] = ()  # caveats about the accuracy
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # the full report of the first evaluation
    evidence: Literal["weights"] = "weights"

    @property
    def top1_pct(self) -> float:
        """The mean over evaluations."""
        return statistics.fmean(self.top1_by_draw_pct)

    def are_comparable_on(self, dataset: str) -> bool:
        """Return whether the model has the published size and was evaluated on all test images of this data set."""
        is_whole = self.data["images"] == self.data["of"]
        is_on = self.data["name"] == dataset and (dataset != "imagenet" or self.data["is_imagenet_validation"])
        return self.scale == PUBLISHED_SCALE and is_whole and is_on


def adopted_folder(root: Path, table: str, row: str, sha256: str, settings: Sequence[str] = ()) -> Path:
    """Return the folder of a file that was adopted for a row; `settings` are those that are not the default ones."""
    digest = f"-{hashlib.sha256(' '.join(settings).encode()).hexdigest()[:8]}" if settings else ""
    return root / table / row / FOLDER / f"{sha256[:8]}{digest}"


def write_adopted(folder: Path, adopted: AdoptedWeights) -> None:
    """Write adopted.json atomically, and replace an earlier one."""
    write_json(folder / FILE, {"schema": SCHEMA, **asdict(adopted)})


def read_adopted(root: Path, table: str, row: str) -> list[AdoptedWeights]:
    """Return the weights that were adopted for a row, ordered by hash. Raises `UserError` for a damaged record."""
    paths = sorted((root / table / row / FOLDER).glob(f"*/{FILE}"))
    return [_read(path, table, row) for path in paths]


def _read(path: Path, table: str, row: str) -> AdoptedWeights:
    adopted = read_validated(path, AdoptedWeights, _ADOPT_AGAIN, SCHEMA)
    assert adopted is not None
    if (adopted.table, adopted.row) != (table, row):
        raise UserError(f"{path}: weights of {adopted.table} {adopted.row}; {_ADOPT_AGAIN}")
    return adopted

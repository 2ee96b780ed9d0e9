"""What a metric is called in W&B: one name for each value of the record, grouped so that its pages open sensibly.

An accuracy of another scale than the paper's has a group of its own (`local/top1_pct`) and a prefix in the summary
(`result/local_top1_best_pct`), so that it never stands in a column that could be taken for the published data set's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.config import Config
from repro.errors import UserError
from repro.paper_tables import load_table
from repro.rows import Row, Table

RESULT = "result/"
EMPTY = "result/cells_without_value"
RESULT_SHA256 = "record/result_sha256"  # whether the server has the result, and nobody has edited it since
PUBLISHED_TOP1 = "published_top1_pct"
_ACCURACY = ("top1", "top5", "loss")
_TRAIN = ("epoch", "loss", "learning_rate")
_SPEED = ("step_time_ms", "images_per_s", "loader_share_pct")
_TOKENS = ("token", "temperature")
# Entries of one update have steps of their own: a step that W&B has closed takes nothing any more, and a run may be
# stopped between two entries of the same update.
_KINDS = ("masks", "train", "eval")


def step_of(entry: Mapping[str, Any]) -> int:
    """The W&B step of an entry: a function of its update and kind, so that every attempt and every push agree on it."""
    kind = entry["kind"]
    place = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    return (len(_KINDS) + 1) * int(entry["update"]) + place


@dataclass(frozen=True)
class Names:
    """The names of one run: where its accuracies go, and the row that it is held against (None for one by hand)."""

    backbone: str
    group: str
    row: Row | None

    @property
    def is_published_training(self) -> bool:
        """Whether an accuracy of this run may be held against the published one."""
        return self.group == "eval"

    def logged(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """One entry of metrics.jsonl under the names that W&B gets, with the update that is every chart's x."""
        kind = entry["kind"]
        values = {
            self._metric(kind, name): value for name, value in entry.items() if name not in ("kind", "update", "epoch")
        }
        if kind == "train":
            if "epoch" in entry:
                values["train/epoch"] = entry["epoch"]
            if "loss" in entry:
                values[self.for_backbone("train_loss")] = entry["loss"]
        if kind == "eval":
            values |= self.target()
            values[self.for_backbone("top1_pct")] = entry["top1_pct"]
        return {**values, "update": entry["update"]}

    def for_backbone(self, name: str) -> str:
        """A second name that only runs of this backbone have: a section of a workspace can choose metrics, not runs."""
        return backbone_metric(self.backbone, self.group, name)

    def _metric(self, kind: str, name: str) -> str:
        if kind == "eval":
            return f"{self.group}/{name.removeprefix('eval_')}"
        if kind == "train" and name in _TRAIN:
            return f"train/{name}"
        if name in _SPEED:
            return f"speed/{name}"
        if "/" in name:
            return name  # grouped by the part that gave it: density/<layer>
        if name.startswith(_TOKENS):
            return f"tokens/{name}"
        return f"cost/{name}" if name == "model_macs_g" else f"sparsity/{name}"

    def target(self) -> dict[str, float]:
        """The published accuracy, logged with each evaluation: a flat line to hold the curve against."""
        published = self.row.best_published("top1_pct") if self.row else None
        if published is None:
            return {}
        return dict.fromkeys(("published/top1_pct", f"{self.backbone}/{PUBLISHED_TOP1}"), published.value)

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The cells of result.json and their digest; `result_of` is the way back."""
        prefix = "" if self.is_published_training else f"{self.group}_"
        cells = {f"{RESULT}{prefix if is_accuracy(name) else ''}{name}": value for name, value in result.items()}
        empty = sorted(name for name, value in cells.items() if value is None)
        full = {name: value for name, value in cells.items() if value is not None}
        full[RESULT_SHA256] = digest(result)
        return {**full, EMPTY: " ".join(empty)} if empty else full  # the client drops a value of None

    def against_published(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Every published value of the row; the difference to the accuracy only where the two may be compared."""
        if self.row is None:
            return {}
        values: dict[str, Any] = {}
        for metric in dict.fromkeys(value.metric for value in self.row.published):
            published = self.row.best_published(metric)
            assert published is not None
            values[f"published/{metric}"] = published.value
        accuracy = values.get("published/top1_pct")
        if accuracy is not None and self.is_published_training and "top1_best_pct" in result:
            values["delta/top1_pct"] = result["top1_best_pct"] - accuracy
        return values


def backbone_metric(backbone: str, group: str, name: str) -> str:
    """`deit_small/top1_pct`; `deit_small/local_top1_pct` at another scale than the paper's."""
    return f"{backbone}/{name}" if group == "eval" else f"{backbone}/{group}_{name}"


def accuracy_group(scale: str, is_published_data: bool) -> str:
    """Where accuracies go: `eval` is the published training's alone."""
    if scale != "paper":
        return scale
    return "eval" if is_published_data else "other_data"


def names_of(table: str, row: str, config: Config) -> Names:
    """The names of a run. Only scale `paper` on the table's own data set is the published training."""
    published = published_table(table)
    found = None if published is None else next((r for r in published.every_row if r.id == row), None)
    is_published_data = published is not None and config.data.name == published.dataset_of(row)
    return Names(config.backbone.name, accuracy_group(config.scale.name, is_published_data), found)


def result_of(summary: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """result.json from a summary: what `Names.summary` made of it, undone."""
    prefix = "" if names.is_published_training else f"{names.group}_"
    every = {**summary, **dict.fromkeys(str(summary.get(EMPTY, "")).split())}
    cells = {
        name.removeprefix(RESULT): value for name, value in every.items() if name.startswith(RESULT) and name != EMPTY
    }
    return {name.removeprefix(prefix) if prefix else name: value for name, value in cells.items()}


def digest(result: Mapping[str, Any]) -> str:
    """sha256 of result.json's values, however they were written: a server gives 10.0 back as 10."""
    plain = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in result.items()
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def is_accuracy(name: str) -> bool:
    """Whether a cell says how well the run's own data were learnt."""
    return name.startswith(_ACCURACY)


def published_table(name: str) -> Table | None:
    """A table of `paper_tables/`; None for what is none (`by_hand`)."""
    try:
        return load_table(name)
    except UserError:
        return None

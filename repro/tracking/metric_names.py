"""The names of metrics in W&B, and the conversion of a summary back to a result.

An accuracy that is not from the published training has a group of its own (`local/top1_pct`) and a prefix in the
summary (`result/local_top1_best_pct`), so that it never appears in the column of a published accuracy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.config import Config
from repro.config.published_training import PUBLISHED_SCALE, is_published_training
from repro.tables.loader import load_table, table_names
from repro.tables.rows import Row, Table

# Groups of accuracies at the published scale; groups at other scales are named after the scale.
PUBLISHED_GROUP = "eval"  # published training only
OTHER_DATA = "other_data"
OTHER_CONFIG = "other_config"  # an override has changed the row's config
RESULT, COST, DENSITY = "result/", "cost/", "density/"
COSTS = frozenset({"params_m", "macs_g", "flops_saving_pct", "flops_saving_alt_pct"})  # cells that `start_run` logs
EMPTY_CELLS = "result/cells_without_value"
RESULT_SHA256 = "record/result_sha256"  # proves that the server has the result, unedited
RESULT_HAS_DENSITIES = "record/result_has_densities"  # some methods log densities that are not cells
PUBLISHED_TOP1 = "published_top1_pct"
_ACCURACIES = ("top1", "top5", "loss")  # cells on the run's own data
_TRAIN = ("epoch", "loss", "learning_rate")
_SPEED = ("step_time_ms", "images_per_s", "loader_share_pct")
_TOKENS = ("token", "temperature")
# Each entry of an update has a step of its own, because W&B accepts only one entry per step, and a run may stop between
# two entries of the same update.
_KINDS = ("masks", "train", "eval")


def step_of(entry: Mapping[str, Any]) -> int:
    """Return the W&B step of an entry, which depends only on its update and kind."""
    kind = entry["kind"]
    offset = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    return (len(_KINDS) + 1) * int(entry["update"]) + offset


@dataclass(frozen=True)
class Names:
    """The metric names of one run, from the group of its accuracies and its row (None for a run without a row)."""

    backbone: str
    group: str
    row: Row | None

    @property
    def is_published_training(self) -> bool:
        """Whether accuracies of this run may be compared with published ones."""
        return self.group == PUBLISHED_GROUP

    def logged(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return an entry of metrics.jsonl with W&B names, and with `update`, the x axis of every chart."""
        kind = entry["kind"]
        values = {
            self._metric(kind, name): value for name, value in entry.items() if name not in ("kind", "update", "epoch")
        }
        if kind == "train":
            if "epoch" in entry:
                values["train/epoch"] = entry["epoch"]
            if "loss" in entry:
                values[self._of_backbone("train_loss")] = entry["loss"]
        if kind == "eval":
            values |= self._published_top1()
            values[self._of_backbone("top1_pct")] = entry["top1_pct"]
        return {**values, "update": entry["update"]}

    def _of_backbone(self, name: str) -> str:
        return backbone_metric(self.backbone, self.group, name)

    def _metric(self, kind: str, name: str) -> str:
        if kind == "eval":
            return f"{self.group}/{name.removeprefix('eval_')}"
        if kind == "train" and name in _TRAIN:
            return f"train/{name}"
        if name in _SPEED:
            return f"speed/{name}"
        if "/" in name:
            return name  # already has the group of the method part that logged it: density/<layer>
        if name.startswith(_TOKENS):
            return f"tokens/{name}"
        return f"cost/{name}" if name == "model_macs_g" else f"sparsity/{name}"

    def _published_top1(self) -> dict[str, float]:
        """Return the published accuracy, which is logged with every evaluation to show as a flat line in charts."""
        published = self.row.best_published("top1_pct") if self.row else None
        if published is None:
            return {}
        return dict.fromkeys(("published/top1_pct", f"{self.backbone}/{PUBLISHED_TOP1}"), published.value)

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cells of result.json and their digest; `result` is the inverse."""
        cells = {self._cell(name): value for name, value in result.items()}
        empty = sorted(name for name, value in cells.items() if value is None)  # the client drops these
        summary = {name: value for name, value in cells.items() if value is not None}
        summary[RESULT_SHA256] = digest(result)
        summary[RESULT_HAS_DENSITIES] = any(name.startswith(DENSITY) for name in result)
        return {**summary, EMPTY_CELLS: " ".join(empty)} if empty else summary

    def _cell(self, name: str) -> str:
        """Return the summary key of a cell. Values that W&B has under another name are not duplicated."""
        if name.startswith(DENSITY):
            return name
        if name in COSTS:
            return f"{COST}{name}"
        return f"{RESULT}{self._prefix if name.startswith(_ACCURACIES) else ''}{name}"

    @property
    def _prefix(self) -> str:
        return "" if self.is_published_training else f"{self.group}_"

    def result(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of result.json from a summary made by `summary`, in this version or an earlier one.

        An earlier version stored all cells under `result/`.
        """
        values = {**summary, **dict.fromkeys(str(summary.get(EMPTY_CELLS, "")).split())}
        cells = {name.removeprefix(RESULT): values[name] for name in values if name.startswith(RESULT)}
        cells.pop(EMPTY_CELLS.removeprefix(RESULT), None)
        if RESULT_HAS_DENSITIES in values:
            cells |= {name: values[f"{COST}{name}"] for name in COSTS if f"{COST}{name}" in values}
        if values.get(RESULT_HAS_DENSITIES):
            cells |= {name: values[name] for name in values if name.startswith(DENSITY)}
        return {name.removeprefix(self._prefix): value for name, value in cells.items()}

    def against_published(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return all published values of the row, and the difference in accuracy if it is comparable."""
        if self.row is None:
            return {}
        metrics = dict.fromkeys(value.metric for value in self.row.published)
        best = {metric: self.row.best_published(metric) for metric in metrics}
        values = {f"published/{metric}": published.value for metric, published in best.items() if published is not None}
        accuracy = values.get("published/top1_pct")
        if accuracy is not None and self.is_published_training and "top1_best_pct" in result:
            values["delta/top1_pct"] = result["top1_best_pct"] - accuracy
        return values


def backbone_metric(backbone: str, group: str, name: str) -> str:
    """Return a second name for a metric: `deit_small/top1_pct`, or `deit_small/local_top1_pct`.

    Only runs of this backbone have it, because a section of a W&B workspace can select metrics but not runs.
    """
    return f"{backbone}/{name}" if group == PUBLISHED_GROUP else f"{backbone}/{group}_{name}"


def names_of(table: str, row: str, config: Config) -> Names:
    """Return the metric names of a run. For a single run, whose `table` is not in `paper_tables/`, there is no row."""
    published = load_table(table) if table in table_names() else None
    found = None if published is None else next((r for r in published.every_row if r.id == row), None)
    return Names(config.backbone.name, _accuracy_group(published, found, config), found)


def _accuracy_group(table: Table | None, row: Row | None, config: Config) -> str:
    """Return the group of a run's accuracies: `eval` for the published training, else one that states what differs."""
    if table is not None and row is not None and is_published_training(table, row, config):
        return PUBLISHED_GROUP
    if config.scale.name != PUBLISHED_SCALE:
        return config.scale.name
    if table is None or row is None or config.data.name != table.dataset_of(row.id):
        return OTHER_DATA
    return OTHER_CONFIG


def digest(result: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of a result. Integral floats are hashed as integers: the server returns 10.0 as 10."""
    plain = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in result.items()
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

"""Rows that read the heat maps of another row's runs: how well those find objects, from `interpretation.json`.

What was measured on other images than the published values were stands in `local_` columns, never in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from repro.errors import UserError
from repro.report.evidence import Evidence
from repro.report.seeds import write_by_seed
from repro.report.statistics import summarise
from repro.report.verdicts import DECIDING_SCALE, OTHER_SCALE, judge, published_cells
from repro.rows import Metric, Table
from repro.runs.record import Record

if TYPE_CHECKING:
    import pandas as pd

OTHER_TRAINING = "not the published training"
INTERPRETATION = "interpretation"  # what such a metric `needs`
SEGMENTATION = ("pixel_accuracy_pct", "mean_accuracy_pct", "mean_iou_pct")  # as `repro interpret` names them
# Of which row's runs, which heat map, of what images (empty where none were looked at) and how many of each seed have a
# mask; how many seeds; and what is missing, in words.
_ORIGIN_COLUMNS = (
    *("run_of", "heat_map", "heat_map_data", "heat_map_images", "heat_map_is_whole", "heat_map_seeds"),
    "heat_map_missing",
)


@dataclass(frozen=True)
class Segmentation:
    """What the finished seeds of a row say of its heat map.

    Attributes:
        values: by metric, then by seed, percent; only of seeds that looked at the same images.
        data: what these are called; `is_whole` says whether they were all that there are of it, `images` how many of
            them have a mask.
        missing: why there is nothing, or less than was asked for; empty where all is there.
    """

    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    data: str = ""
    images: int = 0
    is_whole: bool = True
    missing: str = ""

    @property
    def seeds(self) -> int:
        """How many."""
        return len(next(iter(self.values.values()), ()))

    def is_of(self, dataset: str) -> bool:
        """Whether all images of a data set were looked at, and no others."""
        return self.data == dataset and self.is_whole


def segmentation_metrics(table: Table) -> list[Metric]:
    """The table's metrics that interpretations decide, in print order."""
    return [metric for metric in table.metrics.values() if metric.needs == INTERPRETATION]


def segmentation_columns(table: Table) -> list[str]:
    """The frame's columns for them; none in a table without any."""
    names = [metric.name for metric in segmentation_metrics(table)]
    parts = [f"{at}{name}{end}" for name in names for at in ("", "local_") for end in ("", "_std", "_by_seed")]
    return [*_ORIGIN_COLUMNS, *parts] if names else []


def segmentation_of(evidence: Evidence, dataset: str) -> Segmentation:
    """What the finished runs that a row reads say; of `dataset`'s images where any run has looked at them all.

    Raises `UserError` for a heat map that no model of the row has.
    """
    name, found = evidence.row.heat_map, {}
    for seed, run in evidence.runs.items():
        said = Record(run.path).interpretation() if run.path is not None and run.result is not None else None
        if said is not None:
            found[seed] = said
    if not found:
        return Segmentation(missing="no finished run has been interpreted" if evidence.n_done else "no run is finished")
    masked = {seed: said for seed, said in found.items() if said["images_with_mask"]}
    if not masked:
        return Segmentation(missing=f"{next(iter(found.values()))['data']} has no masks")
    first = next((said for said in masked.values() if _images(said) == (dataset, True)), next(iter(masked.values())))
    alike = {seed: said["maps"] for seed, said in masked.items() if _images(said) == _images(first)}
    for maps in alike.values():
        if name not in maps:
            valid = ", ".join(maps)
            raise UserError(f"{evidence.row.table}: row {evidence.row.id}: heat_map={name}; its runs have {valid}")
    fewer = f"{len(alike)} of {len(evidence.runs)} seeds" if len(alike) < len(evidence.runs) else ""
    metrics = next(iter(alike.values()))[name]
    return Segmentation(
        {metric: {seed: float(maps[name][metric]) for seed, maps in alike.items()} for metric in metrics},
        first["data"],
        first["images_with_mask"],
        _images(first)[1],
        fewer,
    )


def segmentation_line(table: Table, scale: str, evidence: Evidence, wanted_seeds: int) -> dict[str, Any]:
    """A row's part of the frame's line.

    Args:
        scale: as `verdicts.judge` takes it: another word than `paper` for runs that are not the published training.
        wanted_seeds: how many a verdict needs.
    """
    row = evidence.row
    line: dict[str, Any] = {"run_of": row.run_of, "heat_map": row.heat_map}
    for metric in segmentation_metrics(table):
        found = segmentation_of(evidence, metric.dataset)
        line |= {
            "heat_map_data": found.data,
            "heat_map_images": found.images or None,
            "heat_map_is_whole": float(found.is_of(metric.dataset)) if found.images else None,
            "heat_map_seeds": found.seeds or None,
            "heat_map_missing": found.missing,
        }
        is_published = scale == DECIDING_SCALE and found.is_of(metric.dataset)
        values = found.values.get(metric.name, {})
        summary, prefix = summarise(values.values()), "" if is_published else "local_"
        line |= {
            f"{prefix}{metric.name}": summary.mean,
            f"{prefix}{metric.name}_std": summary.std,
            f"{prefix}{metric.name}_by_seed": write_by_seed(values),
        }
        published = row.best_published(metric.name)
        line[f"{metric.name}_verdict"] = judge(
            summary.mean,
            published,
            metric,
            n=summary.n,
            std=summary.std,
            state=evidence.state,
            scale=scale if is_published else OTHER_SCALE,
            seeds=wanted_seeds,
        )
        if published is not None:
            line |= published_cells(published, summary.mean if is_published else None)
    return line


def local_images(frame: pd.DataFrame, table: Table, metric: Metric) -> str:
    """What stands above a metric's values that published ones are not held against, and why: `local (shapes, not
    ImageNet-Segmentation)`; empty where there are none."""
    if metric.needs != INTERPRETATION:
        return ""
    elsewhere = frame[frame[f"local_{metric.name}"].notna()]
    if elsewhere.empty:
        return ""
    data = ", ".join(dict.fromkeys(map(table.label, elsewhere["heat_map_data"])))
    scale = frame["scale"].iloc[0]
    if elsewhere["heat_map_is_whole"].eq(1).all():
        return f"{scale} ({data}, {OTHER_TRAINING})"
    return f"{scale} ({data}, not {_published_images(table, metric, data)})"


def segmentation_notes(lines: Sequence[Mapping[str, Any]], table: Table) -> Iterator[str]:
    """A sentence for each row that reads heat maps: whose, of what images, what was measured, what is missing."""
    metrics = segmentation_metrics(table)
    for line in lines:
        if not metrics or not line["heat_map"]:
            continue
        words = f"{line['row']}: {line['heat_map']} of the runs of {line['run_of']}"
        for metric in metrics:
            local, own = line[f"local_{metric.name}"], line[metric.name]
            if not math.isnan(local) or not math.isnan(own):
                value, prefix = (local, "local_") if math.isnan(own) else (own, "")
                std = line[f"{prefix}{metric.name}_std"]
                words += f"; {metric.label} {value:.2f}{'' if math.isnan(std) else f' ± {std:.2f}'}"
        verdicts = dict.fromkeys(str(line[f"{metric.name}_verdict"]) for metric in metrics)
        yield f"{words}; {images_of(line, table)}; {', '.join(verdicts)}"


def images_of(line: Mapping[str, Any], table: Table) -> str:
    """Of which images a row's metrics are, over how many seeds, and what is missing, in words."""
    metric, words = segmentation_metrics(table)[0], []
    if line["heat_map_data"]:
        images, seeds = int(line["heat_map_images"]), int(line["heat_map_seeds"])
        words.append(f"{table.label(line['heat_map_data'])}, {images:,} images with a mask, n = {seeds}")
    if math.isnan(line[metric.name]) and line["heat_map_is_whole"] == 1:
        words.append(OTHER_TRAINING)
    elif math.isnan(line[metric.name]):
        what = _published_images(table, metric, table.label(line["heat_map_data"]))
        words.append(f"not run on {what} at this scale")
    return "; ".join([*words, *([line["heat_map_missing"]] if line["heat_map_missing"] else [])])


def _published_images(table: Table, metric: Metric, data: str) -> str:
    """The published values' images; all of them, where those that were looked at are the first few."""
    name = table.label(metric.dataset)
    return f"all of {name}" if name in data.split(", ") else name


def _images(said: Mapping[str, Any]) -> tuple[str, bool]:
    """What was looked at, and whether at all of it: one that does not say may be of a part, or of another file."""
    return str(said["data"]), bool(said.get("is_whole", False) and said.get("is_the_data_set", False))

"""Rows that read the heat maps of another row's runs: segmentation metrics from `interpretation.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from repro.errors import UserError, count_of
from repro.report.evidence import Evidence
from repro.tables.rows import Metric

SEGMENTATION = ("pixel_accuracy_pct", "mean_accuracy_pct", "mean_iou_pct")  # the names in `interpretation.json`


@dataclass(frozen=True)
class Segmentation:
    """Segmentation metrics of a row's heat map over its finished seeds.

    Attributes:
        values: values by metric, then by seed, in percent; only for seeds that used the same images.
        data: data set of these images; empty if no seed has values.
        images: number of these images that have a mask.
        is_whole: whether they are all images of the data set.
        missing: why there are no values, or fewer than the row has seeds; empty otherwise.
    """

    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    data: str = ""
    images: int = 0
    is_whole: bool = True
    missing: str = ""

    @property
    def seeds(self) -> int:
        """Number of seeds with values."""
        return len(next(iter(self.values.values()), ()))

    def is_of(self, dataset: str) -> bool:
        """Return whether all images of a data set were used, and no others."""
        return self.data == dataset and self.is_whole


def is_segmentation(metric: Metric) -> bool:
    """Return whether a metric is computed from heat maps."""
    return metric.needs == "interpretation"


def segmentation_of(evidence: Evidence, dataset: str) -> Segmentation:
    """Read the segmentation metrics of a row's heat map, on all images of `dataset` if any run has used them.

    Raises `UserError` if the row's model does not have this heat map.
    """
    name = evidence.row.heat_map
    found = {
        seed: interpretation
        for seed, record in evidence.finished.items()
        if (interpretation := record.interpretation()) is not None
    }
    if not found:
        return Segmentation(missing="no finished run has been interpreted" if evidence.n_done else "no run is finished")
    masked = {seed: one for seed, one in found.items() if one["images_with_mask"]}
    if not masked:
        return Segmentation(missing=f"{next(iter(found.values()))['data']} has no masks")
    first = next((one for one in masked.values() if _images(one) == (dataset, True)), next(iter(masked.values())))
    same = {seed: one["maps"] for seed, one in masked.items() if _images(one) == _images(first)}
    for maps in same.values():
        if name not in maps:
            valid = ", ".join(maps)
            raise UserError(f"{evidence.row.table}: row {evidence.row.id}: heat_map={name}; its runs have {valid}")
    return Segmentation(
        {metric: {seed: float(maps[name][metric]) for seed, maps in same.items()} for metric in SEGMENTATION},
        first["data"],
        first["images_with_mask"],
        _images(first)[1],
        f"{len(same)} of {count_of(len(evidence.runs), 'seed')}" if len(same) < len(evidence.runs) else "",
    )


def _images(interpretation: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the data set and whether all of it was used, which is False if the interpretation does not state it."""
    is_whole = interpretation.get("is_whole", False) and interpretation.get("is_the_data_set", False)
    return str(interpretation["data"]), bool(is_whole)

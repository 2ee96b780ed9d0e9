"""Schemas of the files of a table: `table.yaml`, `rows.csv`, `ablations.csv`, `published.csv`, `sources.csv`.

Backbones, methods, data sets and scales have to be options of the config groups, including the user's own options.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from repro.errors import did_you_mean
from repro.locations import groups
from repro.tables.rows import PUBLISHED, Kind, Metric, row_id

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, lt=100)]


def _option(group: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in groups()[group]:
            raise ValueError(f"no {group} {name!r}{did_you_mean(name, groups()[group])}")
        return name

    return AfterValidator(check)


Backbone = Annotated[str, _option("backbone")]
Method = Annotated[str, _option("method")]
Dataset = Annotated[str, _option("data")]
Scale = Annotated[str, _option("scale")]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RowSetEntry(_File):
    """Rows that are generated as the Cartesian product of these lists."""

    backbone: list[Backbone]
    method: list[Method]
    arch_sparsity_pct: list[Percent]
    data_sparsity_pct: list[Percent]


class TableFile(_File):
    """`table.yaml`. The keys of `datasets` and of each scale in `overrides` are glob patterns for row ids."""

    name: Text
    title: Text
    paper: Text
    dataset: Dataset
    datasets: dict[str, Dataset] = {}
    figure: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$")] = ""
    macs_label: Text = "MACs per image (G)"
    default: list[str] = [PUBLISHED]
    seeds: dict[Scale, Count] = {}
    overrides: dict[Scale, dict[str, list[str]]] = {}
    metrics: Annotated[dict[str, Metric], Field(min_length=1)]
    labels: dict[str, str] = {}
    row_sets: dict[str, list[RowSetEntry]] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_metrics(cls, content: Any) -> Any:
        metrics = content.get("metrics")
        if not isinstance(metrics, dict):
            return content
        named = {key: {"name": key, **value} if isinstance(value, dict) else value for key, value in metrics.items()}
        return {**content, "metrics": named}


class RowRecord(_File):
    """A line of `rows.csv` or `ablations.csv`. `overrides` and `scales` are separated by spaces."""

    row: Text
    backbone: Backbone
    method: Method
    arch_sparsity_pct: Percent
    data_sparsity_pct: Percent
    overrides: str = ""
    scales: str = ""
    run_of: str = ""
    heat_map: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _agrees_with_its_id(self) -> RowRecord:
        if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", self.row):  # it is a path in the runs folder
            raise ValueError(f"row {self.row!r}: write backbone/name, in letters, digits, '_', '.', '+' and '-'")
        own = row_id(self.backbone, self.method, self.arch_sparsity_pct, self.data_sparsity_pct)
        if not _matches_columns(self.row, self.backbone, self.method, own):
            raise ValueError(f"row {self.row!r}: its columns are those of {own} (a name may follow: {own}-mine)")
        return self


class PublishedRecord(_File):
    """A line of `published.csv`. `uncertainty` is 0 if the source states none."""

    row: Text
    metric: Text
    value: Annotated[float, Field(allow_inf_nan=False)]
    uncertainty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    kind: Kind
    source: Text
    note: str = ""


class SourceRecord(_File):
    """A line of `sources.csv`."""

    source: Text
    citation: Text
    where: Text


def _matches_columns(id_: str, backbone: str, method: str, own: str) -> bool:
    """Return whether a row's id matches the backbone, method and sparsities in its columns.

    `own` is the id that the columns give. Backbone and method may be shortened at an underscore to a word that is not
    another backbone or method (`timesformer` for `timesformer_base`). A suffix of the id completes the method
    (`spartan-90-block16` for `spartan_block16`) or is free text.
    """
    prefix, _, name = id_.partition("/")
    word, *rest = name.split("-")
    levels = own.partition("/")[2].split("-")[1:]
    suffix = rest[len(levels) :]
    shortened_backbone = backbone.startswith(f"{prefix}_") and prefix not in groups()["backbone"]
    shortened_method = method.startswith(f"{word}_") and (
        word not in groups()["method"] or method == "_".join([word, *suffix[:1]])
    )
    has_other_level = bool(suffix) and suffix[0].replace(".", "", 1).isdecimal()
    return (
        (prefix == backbone or shortened_backbone)
        and (word == method or shortened_method)
        and rest[: len(levels)] == levels
        and not has_other_level
    )

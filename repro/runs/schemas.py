"""The schemas of a record's JSON files. They cover the values that this code reads, which are validated on reading."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic import model_validator as validator
from pydantic_core import PydanticCustomError

RESULT_SCHEMA = 1
ANATOMY_SCHEMA = 2

Percent = Annotated[float, Field(ge=0, le=100)]
# Prefixes of numbers that only some results have: accuracies over several views, densities, keep rates.
_OPTIONAL_NUMBERS = ("top1_", "top5_", "density/", "keep_rate_")


class _Schema(BaseModel):
    """A model without coercion (`"5"` is not a number), which allows unknown keys."""

    model_config = ConfigDict(strict=True, extra="allow")


class Result(_Schema):
    """result.json with schema `RESULT_SCHEMA`."""

    table: str
    row: str
    scale: str
    seed: NonNegativeInt
    signature: str
    updates: NonNegativeInt
    wall_s: NonNegativeFloat
    top1_last_pct: Percent
    top1_best_pct: Percent
    top1_ema_last_pct: Percent | None = None
    top5_last_pct: Percent | None = None

    @validator(mode="after")
    def _has_numbers(self) -> Result:
        for name, value in (self.model_extra or {}).items():
            if name.startswith(_OPTIONAL_NUMBERS):
                if not isinstance(value, int | float):
                    raise PydanticCustomError("number", "{name} should be a number", {"name": name})
                if name.endswith("_pct") and not 0 <= value <= 100:
                    raise PydanticCustomError("percent", "{name} should be from 0 to 100", {"name": name})
        return self


class _Gpu(_Schema):
    name: str
    memory_gib: float
    driver: str | None = None


class Provenance(_Schema):
    """provenance.json. A record that was pulled from W&B contains only what was mirrored there, possibly nothing."""

    commit: str | None = None
    dirty_diff_sha256: str | None = None
    os: str | None = None
    cpu: str | None = None
    cpu_count: PositiveInt | None = None
    gpu: list[_Gpu] | None = None
    python: str | None = None
    versions: dict[str, str | None] | None = None
    data_fingerprint: str | None = None
    data_classes: list[str] | None = None
    pulled_from: str | None = None


class Anatomy(_Schema):
    """anatomy.json, which `repro extract` writes."""

    schema_: Literal[2] = Field(alias="schema")
    heads: list[list[bool]]
    images: list[list[list[float]]] | None = None
    kept: list[list[list[bool]]] | None = None
    patch_size: PositiveInt | None = None

    @validator(mode="after")
    def _is_consistent(self) -> Anatomy:
        if len({len(layer) for layer in self.heads}) > 1:
            raise PydanticCustomError("heads", "heads should have the same length in each layer")
        if self.kept is not None:
            counts = {len(stage) for stage in self.kept}
            if self.images is None or self.patch_size is None or counts != {len(self.images)}:
                raise PydanticCustomError("kept", "kept should have every image in each stage, and needs a patch_size")
            sizes = {(len(image), len(line)) for image in self.images for line in image}
            patches = {height // self.patch_size * (width // self.patch_size) for height, width in sizes}
            if len(sizes) != 1 or {len(each) for stage in self.kept for each in stage} != patches:
                raise PydanticCustomError("kept", "images should have one size, and kept should have every patch")
        return self


class _Stage(_Schema):
    kept_pct: Percent
    object_kept_pct: Percent | None = None
    background_kept_pct: Percent | None = None

    @validator(mode="after")
    def _has_both(self) -> _Stage:
        if (self.object_kept_pct is None) != (self.background_kept_pct is None):
            raise PydanticCustomError(
                "stage", "a stage should have object_kept_pct and background_kept_pct, or neither"
            )
        return self


class _Segmented(_Schema):
    pixel_accuracy_pct: Percent
    mean_accuracy_pct: Percent
    mean_iou_pct: Percent


class Interpretation(_Schema):
    """interpretation.json, which `repro interpret` writes."""

    data: str
    is_whole: bool = False
    is_the_data_set: bool = False
    images: PositiveInt
    images_with_mask: NonNegativeInt
    maps: dict[str, _Segmented]
    stages: list[_Stage]

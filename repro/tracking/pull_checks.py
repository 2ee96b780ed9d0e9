"""What a run of a project has to be before it becomes a record here: all of it, and that of the row that it names.

Table and row are in no signature, and a summary can be edited by anybody: what they say is held against the rows, the
config and the result's own digest. Nothing that a server says becomes a path before it is known to be a row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from repro.composition import compose
from repro.config import Config
from repro.errors import UserError, did_you_mean
from repro.launch.by_hand import TABLE as BY_HAND
from repro.paper_tables import load_table, table_names
from repro.rows import Row
from repro.runs.contents import RESULT_SCHEMA
from repro.tracking.mirror_file import one_line
from repro.tracking.names import RESULT_SHA256, digest, names_of, result_of

_CELLS = ("updates", "wall_s", "loss_last", "top1_last_pct", "top1_best_pct")  # what every finished run has
_OF_EVERY_ROW = ("backbone.name", "method.name", "method.sparsity", "method.data_sparsity")


def check_words(words: Sequence[str]) -> None:
    """Raises `UserError` for a `TABLE[/ROW]` whose table there is not."""
    for word in words:
        table = word.partition("/")[0]
        if table not in table_names():
            raise UserError(f"{word}: no table {table!r}{did_you_mean(table, table_names())}")


def is_of_a_table(about: Mapping[str, Any]) -> bool:
    """Whether a run says that it belongs to a table; one by hand (`repro train`) does not."""
    return bool(about["table"] != BY_HAND)


def row_of(name: str, about: Mapping[str, Any]) -> Row:
    """The row that a run says it is. Raises `UserError`, with what is valid, for one that there is not."""
    table, row = str(about["table"]), str(about["row"])
    if table not in table_names():
        raise UserError(f"{name}: no table {table!r}{did_you_mean(table, table_names())}")
    rows = {one.id: one for one in load_table(table).every_row if not one.run_of}
    if row not in rows:
        raise UserError(f"{name}: {table} has no row {row!r}{did_you_mean(row, rows)} (repro list {table} shows all)")
    return rows[row]


def config_of_row(name: str, about: Mapping[str, Any], row: Row) -> Config:
    """The run's config. Raises `UserError` for one of other code, and for one that is not the row's."""
    try:
        config = Config.model_validate({key: about[key] for key in Config.model_fields})
    except (KeyError, ValidationError) as error:
        raise UserError(
            f"{name}: its config is not of this version of the code ({one_line(error)}); pull with the version "
            "that made it"
        ) from None
    scale = config.scale.name
    own, theirs = config.model_dump(mode="json"), _composed(row.table, row.id, scale).model_dump(mode="json")
    for key in (*_OF_EVERY_ROW, *(setting.partition("=")[0] for setting in row.settings)):
        if _value(own, key) != _value(theirs, key):
            raise UserError(
                f"{name}: not the row {row.id} that it says: its {key} is {_value(own, key)!r}, the row's is "
                f"{_value(theirs, key)!r}"
            )
    if _signature(row, scale, config.seed) != config.signature:  # launched with overrides, or of another row
        for other in load_table(row.table).every_row:
            is_alike = (other.backbone, other.method) == (row.backbone, row.method) and other.id != row.id
            if is_alike and _signature(other, scale, config.seed) == config.signature:
                raise UserError(f"{name}: not the row {row.id} that it says: its config is that of {other.id}")
    return config


def result_of_run(name: str, summary: Mapping[str, Any], config: Config, row: Row) -> dict[str, Any]:
    """The run's result.json. Raises `UserError` for one that is not whole, was edited, or is of something else."""
    result = result_of(summary, names_of(row.table, row.id, config))
    if result.get("schema") != RESULT_SCHEMA:
        raise UserError(
            f"{name}: its result has schema {result.get('schema')!r}, this code reads {RESULT_SCHEMA}; pull with the "
            "code that wrote it"
        )
    asked = {
        "table": row.table,
        "row": row.id,
        "scale": config.scale.name,
        "seed": config.seed,
        "dataset": config.data.name,
    }
    for key, value in asked.items():
        if result.get(key) != value:
            raise UserError(f"{name}: its result says {key} {result.get(key)!r}, its config {value!r}")
    again = "push it again from its record, with this version of the code"
    if empty := [cell for cell in _CELLS if not isinstance(result.get(cell), int | float)]:
        raise UserError(f"{name}: its result has no {', '.join(empty)}; {again}")
    if RESULT_SHA256 not in summary:
        raise UserError(f"{name}: its summary has no {RESULT_SHA256}, so it may be half of one; {again}")
    is_finite = all(math.isfinite(value) for value in result.values() if isinstance(value, float))
    if summary[RESULT_SHA256] != digest(result) or not is_finite:
        raise UserError(f"{name}: its result is not what its record had, somebody edited it; {again}")
    return result


@functools.lru_cache(maxsize=256)
def _composed(table: str, row: str, scale: str) -> Config:
    found = next(one for one in load_table(table).every_row if one.id == row)
    return compose(["data.root=unused", *found.overrides_at(scale)])


def _signature(row: Row, scale: str, seed: int) -> str:
    return _composed(row.table, row.id, scale).model_copy(update={"seed": seed}).signature


def _value(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found.get("name", found) if isinstance(found, dict) else found

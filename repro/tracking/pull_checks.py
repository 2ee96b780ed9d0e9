"""Checks of a W&B run before it is converted to a record.

Table and row are not part of a signature, and anyone can edit a summary. So both are checked against the known rows,
the config and the digest of the result, and no string from a server is used in a path before it is known to be a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from repro.config import Config
from repro.config.published_training import row_config
from repro.errors import UserError, did_you_mean
from repro.runs.schemas import RESULT_SCHEMA
from repro.tables.loader import load_table, table_names
from repro.tables.rows import Row
from repro.tracking.metric_names import RESULT_SHA256, digest, names_of
from repro.tracking.mirror_file import one_line

_NUMERIC_CELLS = ("updates", "wall_s", "loss_last", "top1_last_pct", "top1_best_pct")  # present in every finished run
_ROW_KEYS = ("backbone.name", "method.name", "method.sparsity", "method.data_sparsity")


def check_tables(prefixes: Sequence[str]) -> None:
    """Raise `UserError` for a `TABLE[/ROW]` whose table does not exist."""
    for prefix in prefixes:
        _check_table(prefix, prefix.partition("/")[0])


def row_of(name: str, about: Mapping[str, Any]) -> Row:
    """Return the row that the run called `name` claims to be. Raises `UserError` if there is none."""
    table, row = str(about["table"]), str(about["row"])
    _check_table(name, table)
    rows = {candidate.id: candidate for candidate in load_table(table).every_row if not candidate.reads_runs_of}
    if row not in rows:
        raise UserError(f"{name}: {table} has no row {row!r}{did_you_mean(row, rows)} (repro list {table} shows all)")
    return rows[row]


def _check_table(name: str, table: str) -> None:
    if table not in table_names():
        raise UserError(f"{name}: no table {table!r}{did_you_mean(table, table_names())}")


def config_of_row(name: str, about: Mapping[str, Any], row: Row) -> Config:
    """Return the run's config. Raises `UserError` if it is from another version of the code, or not the row's."""
    try:
        config = Config.model_validate({key: about[key] for key in Config.model_fields})
    except (KeyError, ValidationError) as error:
        raise UserError(
            f"{name}: its config is not of this version of the code ({one_line(error)}); pull with the version "
            "that trained it"
        ) from None
    own = config.model_dump(mode="json")
    expected = row_config(row, config.scale.name).model_dump(mode="json")
    for key in (*_ROW_KEYS, *(override.partition("=")[0] for override in row.own_overrides)):
        if _value(own, key) != _value(expected, key):
            raise UserError(
                f"{name}: claims to be row {row.id}, but its {key} is {_value(own, key)!r}, the row's is "
                f"{_value(expected, key)!r}"
            )
    return config


def result_of_run(name: str, summary: Mapping[str, Any], config: Config, row: Row) -> dict[str, Any]:
    """Return the run's result.json. Raises `UserError` if it is incomplete, edited, or belongs to another run."""
    result = names_of(row.table, row.id, config).result(summary)
    if result.get("schema") != RESULT_SCHEMA:
        raise UserError(
            f"{name}: its result has schema {result.get('schema')!r}, this code reads {RESULT_SCHEMA}; pull with the "
            "code that wrote it"
        )
    expected = {
        "table": row.table,
        "row": row.id,
        "scale": config.scale.name,
        "seed": config.seed,
        "dataset": config.data.name,
    }
    for key, value in expected.items():
        if result.get(key) != value:
            raise UserError(f"{name}: its result has {key} {result.get(key)!r}, its config {value!r}")
    push_again = "push it again from its record, with this version of the code"
    if missing := [cell for cell in _NUMERIC_CELLS if not isinstance(result.get(cell), int | float)]:
        raise UserError(f"{name}: its result has no {', '.join(missing)}; {push_again}")
    if RESULT_SHA256 not in summary:
        raise UserError(f"{name}: its summary has no {RESULT_SHA256} and may be incomplete; {push_again}")
    is_finite = all(math.isfinite(value) for value in result.values() if isinstance(value, float))
    if summary[RESULT_SHA256] != digest(result) or not is_finite:
        raise UserError(f"{name}: its result does not match its digest, it was edited on the server; {push_again}")
    return result


def _value(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; for a section, its name."""
    value: Any = values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value.get("name", value) if isinstance(value, dict) else value

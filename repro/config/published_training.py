"""Whether a run is the training that a published row describes, so that their accuracies are comparable."""

from __future__ import annotations

import functools

from repro.config import Config
from repro.config.compose import compose
from repro.config.data_roots import NO_FOLDER
from repro.tables.rows import Row, Table

PUBLISHED_SCALE = "paper"  # the only scale whose accuracies can be compared with published ones


@functools.lru_cache(maxsize=2048)
def row_config(row: Row, scale: str) -> Config:
    """Compose the config of `row` at `scale` without user overrides, with the default seed and no data folder."""
    return compose([NO_FOLDER, *row.overrides_at(scale)])


def paper_config(row: Row) -> Config:
    """Compose the config of `row` at its published size: see `row_config`."""
    return row_config(row, PUBLISHED_SCALE)


def is_unchanged(row: Row, config: Config) -> bool:
    """Return whether `config` is the row's own at its scale, apart from values that cannot change a result."""
    own = row_config(row, config.scale.name).model_copy(update={"seed": config.seed})
    return own.signature == config.signature


def is_published_training(table: Table, row: Row, config: Config) -> bool:
    """Return whether `config` is the training that the paper describes for `row`: its scale, data and own config."""
    return (
        config.scale.name == PUBLISHED_SCALE
        and config.data.name == table.dataset_of(row.id)
        and is_unchanged(row, config)
    )

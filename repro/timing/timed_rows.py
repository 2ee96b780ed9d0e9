"""The rows of a table whose model is physically smaller than the dense model and can therefore be faster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repro.config import Config
from repro.config.costs import faster_by, macs_depend_on_data, measured_token_options, physical_macs_g
from repro.config.published_training import PUBLISHED_SCALE, paper_config
from repro.runs.record import record_for
from repro.tables.rows import Row, Table


@dataclass(frozen=True)
class TimedRow:
    """A row that can be faster than its dense reference; `faster_by` says what makes it so."""

    row: Row
    reference: Row
    config: Config
    faster_by: str

    @property
    def macs_saving_pct(self) -> float:
        """The MACs that the model saves as it is executed, in percent of the reference's."""
        dense = physical_macs_g(self.config.model, paper_config(self.reference).method)
        return 100 * (1 - physical_macs_g(self.config.model, self.config.method) / dense)


def timed_rows(table: Table, rows: Iterable[Row], root: Path | None = None) -> list[TimedRow]:
    """Return the rows whose model is physically smaller than their reference's, those with a published time first.

    Keep rates are those that the finished runs below `root` have measured, or the planned ones without such runs.
    """
    timed = []
    for row in rows:
        reference = table.reference(row.backbone)
        if row.reads_runs_of or reference is None:  # a row that reads another row's runs has the model of that row
            continue
        planned, seeds = paper_config(row), range(table.default_seeds(PUBLISHED_SCALE))
        config = planned if root is None else with_measured_keep_rates(planned, table.name, row.id, seeds, root)
        if reason := faster_by(config.method):
            reason = reason if config is planned else reason.replace("planned", "measured")
            timed.append(TimedRow(row, reference, config, reason))
    return sorted(timed, key=lambda each: not has_published_time(table, each.row))


def with_measured_keep_rates(config: Config, table: str, row: str, seeds: Iterable[int], root: Path) -> Config:
    """Return the config of the published training with the mean keep rates of its finished runs below `root`.

    The config is unchanged if its number of tokens does not depend on the image, or if a seed is not finished.
    """
    if config.method.tokens is None or not macs_depend_on_data(config.method):
        return config
    results = [record_for(root, config.model_copy(update={"seed": seed}), table, row).result() for seed in seeds]
    options = measured_token_options(config.method, [result or {} for result in results])
    if options is None:
        return config
    tokens = config.method.tokens.model_copy(update=options)
    return config.model_copy(update={"method": config.method.model_copy(update={"tokens": tokens})})


def has_published_time(table: Table, row: Row) -> bool:
    """Return whether a time is published for the row, so that a verdict depends on its timing."""
    return any(
        metric.needs == "device" and row.best_published(name) is not None for name, metric in table.metrics.items()
    )

"""The rows of a table whose model is physically smaller than the dense one, and that can therefore be faster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repro.config import Config
from repro.config.compose import compose
from repro.config.costs import faster_by, measured_token_options, physical_macs_g, rests_on_data
from repro.runs.record import record_for
from repro.tables.rows import Row, Table


@dataclass(frozen=True)
class TimedRow:
    """A row that can be faster than its dense reference, and what makes it so."""

    row: Row
    reference: Row
    config: Config
    faster_by: str

    @property
    def macs_saving_pct(self) -> float:
        """The share of the reference's MACs that the model saves as it runs."""
        dense = physical_macs_g(self.config.model, paper_config(self.reference).method)
        return 100 * (1 - physical_macs_g(self.config.model, self.config.method) / dense)


def timed_rows(table: Table, rows: Iterable[Row], root: Path | None = None) -> list[TimedRow]:
    """Return the rows whose model is physically smaller than their reference's, those with a published time first.

    Keep rates are those that finished runs below `root` measured, if there are such runs, otherwise the planned ones.
    """
    timed = []
    for row in rows:
        reference = table.reference(row.backbone)
        if row.reads_runs_of or reference is None:  # the model of a row that reads another row's runs is timed there
            continue
        planned, seeds = paper_config(row), range(table.default_seeds("paper"))
        config = planned if root is None else with_measured_keep_rates(planned, table.name, row.id, seeds, root)
        if reason := faster_by(config.method):
            reason = reason if config is planned else reason.replace("planned", "measured")
            timed.append(TimedRow(row, reference, config, reason))
    return sorted(timed, key=lambda each: not has_published_time(table, each.row))


def with_measured_keep_rates(config: Config, table: str, row: str, seeds: Iterable[int], root: Path) -> Config:
    """Return the config of the published training with the mean keep rates of its finished runs below `root`.

    The config is unchanged if its number of tokens does not depend on the image, or a seed is not finished.
    """
    if config.method.tokens is None or not rests_on_data(config.method):
        return config
    results = [record_for(root, config.model_copy(update={"seed": seed}), table, row).result() for seed in seeds]
    options = measured_token_options(config.method, [result or {} for result in results])
    if options is None:
        return config
    tokens = config.method.tokens.model_copy(update=options)
    return config.model_copy(update={"method": config.method.model_copy(update={"tokens": tokens})})


def has_published_time(table: Table, row: Row) -> bool:
    """Return whether a verdict on the row depends on its timing."""
    return any(
        metric.needs == "device" and row.best_published(name) is not None for name, metric in table.metrics.items()
    )


def paper_config(row: Row) -> Config:
    """Return the config of the row at its published size. Timing reads no image, so the data root is a placeholder."""
    return compose([*row.overrides_at("paper"), "data.root=not_read_by_a_timing"])

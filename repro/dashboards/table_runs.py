"""The runs behind a table, as selected and linked by a dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.config.signature import signatures
from repro.report.cells import Results
from repro.runs.record import Record, record_for
from repro.tables.rows import Row, Table
from repro.tracking.metric_names import names_of
from repro.tracking.mirror_file import read_mirror


@dataclass(frozen=True)
class TableRuns:
    """The runs of some rows of a table at one scale.

    Attributes:
        group: the metric group of their accuracies, see `repro.tracking.metric_names`.
        records: records by row and signature, one for each seed; they may not exist.
    """

    table: Table
    rows: tuple[Row, ...]
    scale: str
    group: str
    records: Mapping[str, Mapping[str, Record]]

    def filters(self, backbone: str | None = None) -> str:
        """Return the W&B filter that selects these runs, in the filter syntax of wandb-workspaces.

        It includes signatures, because otherwise runs with other configs (older defaults, overrides) would be averaged
        as if they were seeds.
        """
        rows = [row for row in self.rows if backbone in (None, row.backbone)]
        chosen = ", ".join(f"'{signature}'" for row in rows for signature in self.records[row.id])
        cell = f"Config('table') = '{self.table.name}' and Config('scale.name') = '{self.scale}'"
        return f"{cell} and Config('signature') in [{chosen}]"

    @property
    def backbones(self) -> list[str]:
        """The backbones of the rows, in row order."""
        return list(dict.fromkeys(row.backbone for row in self.rows))

    def urls(self, row: Row) -> list[str]:
        """Return the W&B URLs of those of a row's runs that are mirrored."""
        mirrors = [read_mirror(record.path) for record in self.records[row.id].values()]
        return [mirror.url for mirror in mirrors if mirror is not None and mirror.url]


def table_runs(results: Results, seeds: Sequence[int], root: Path) -> TableRuns:
    """Return the runs behind the rows of a report, with records under `root`."""
    table, configs = results.table, {row.row: row.evidence.config for row in results.rows}
    records = {
        row.id: {
            signature: record_for(root, config.model_copy(update={"seed": seed}), table.name, row.run_id, signature)
            for seed, signature in signatures(config, seeds).items()
        }
        for row, config in configs.items()
    }
    first, config = next(iter(configs.items()))
    group = names_of(table.name, first.run_id, config).group
    return TableRuns(table, tuple(configs), results.scale, group, records)

"""The runs behind a table, as selected and linked by a dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from repro.report.cells import Results
from repro.runs.record import Record
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


def table_runs(results: Results) -> TableRuns:
    """Return the runs behind the rows of a report."""
    records = {row.row.id: {run.signature: run.record for run in row.evidence.runs.values()} for row in results.rows}
    first = results.rows[0]
    group = names_of(results.table.name, first.row.run_id, first.evidence.config).group
    return TableRuns(results.table, tuple(row.row for row in results.rows), results.scale, group, records)

"""Existing runs, by the folder of their records: those of `repro train`, or part of a table."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro.cli.selection import Selection, program, selection
from repro.errors import UserError, count_of
from repro.locations import expand_home

if TYPE_CHECKING:
    from repro.launch.plan import PlannedRun
    from repro.launch.status import RunStatus

TABLE_OR_FOLDER = "name of a table (repro list), or a folder of records: all of them, at every scale"


@dataclass(frozen=True)
class RecordFolder:
    """A record, or a folder of records, with their `runs`, at least one."""

    folder: Path
    runs: list[PlannedRun]

    @property
    def title(self) -> str:
        """`runs/by_hand`."""
        return str(self.folder)

    @property
    def root(self) -> Path:
        """The folder of all records. A record is at `<root>/<table>/<backbone>/<method>/<scale>/<seed>`."""
        return self.runs[0].record.path.parents[4]

    def plan(self) -> list[PlannedRun]:
        """The runs of the records."""
        return self.runs

    def selected_runs(self) -> list[PlannedRun]:
        """The same runs, because a folder of records has no others."""
        return self.runs

    def run_of_seed(self, seed: int | None) -> PlannedRun:
        """The only run, or the only one of a seed. Raises `UserError` if there are several, or none."""
        runs = [run for run in self.runs if seed is None or run.config.seed == seed]
        if not runs:
            raise UserError(f"{self.folder}: no run of seed {seed}")
        if len(runs) > 1:
            raise UserError(
                f"{self.folder}: {count_of(len(runs), 'run')}; name the folder of one, such as {runs[0].record.path}"
            )
        return runs[0]

    def logs_command(self, status: RunStatus) -> str:
        """The command that prints the output of a run, ready to paste."""
        return shlex.join([*program(), "logs", status.record])


def runs_of(options: argparse.Namespace) -> Selection | RecordFolder:
    """The runs that the first word of a command names: those of a table, or of a folder of records.

    Raises `UserError` for row patterns and overrides after a folder, which has no rows of its own, and for a folder
    without records.
    """
    from repro.launch.plan import recorded_run
    from repro.runs.record import all_records
    from repro.tables.loader import table_names

    folder = Path(expand_home(options.table))
    if options.table in table_names() or not (folder.is_dir() or "/" in options.table):
        return selection(options)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of records")
    if options.words:
        raise UserError(f"{options.words[0]}: row patterns and overrides go with a table, and {folder} is a folder")
    runs = [recorded_run(record) for record in all_records(folder.absolute())]
    if not runs:
        raise UserError(f"{folder}: no run records; repro train prints the folder of its record")
    return RecordFolder(folder, runs)

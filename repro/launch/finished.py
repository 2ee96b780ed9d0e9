"""The record of a finished run, by the words a person types: a folder, or a row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro.errors import UserError, did_you_mean
from repro.launch.plan import plan
from repro.paper_tables import load_table, table_names
from repro.runs.record import Record


def finished_record(what: str, scale: str, seed: int, root: Path, overrides: Sequence[str]) -> Record:
    """The record in the folder `what`, or that of the row `what` at a scale and seed below `root`.

    Raises `UserError` for what is neither, and for a run that is not done.
    """
    record = Record(Path(what))
    if not (record.path / "config.yaml").is_file():
        tables = [table for table in map(load_table, table_names()) if what in {row.id for row in table.every_row}]
        if not tables:
            rows = [row.id for name in table_names() for row in load_table(name).every_row]
            raise UserError(f"{what}: neither a record's folder nor a row{did_you_mean(what, rows)} (repro list)")
        runs = plan(tables[0], tables[0].select([what]), scale, [seed], root, overrides)
        record = runs[-1].record  # the run that it begins with, if any, comes before it
    if record.result() is None:
        raise UserError(f"{record.path}: not done ({record.status().state}); launch the row first")
    return record

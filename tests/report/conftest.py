"""Records for the report tests, written once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from report_records import view_of_results, write_record

from repro.report.cells import Results
from repro.report.collect import collect_results
from repro.report.frame import frame_of
from repro.report.view import View
from repro.tables.loader import load_table
from repro.tables.rows import Table

SEEDS = (0, 1, 2)


@pytest.fixture(scope="session")
def table() -> Table:
    return load_table("table1")


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory, table: Table) -> dict[str, Path]:
    """Runs at two scales in every state that a run can be in; only the accuracies differ between scales."""
    found = {}
    for scale in ("local", "paper"):
        root = found[scale] = tmp_path_factory.mktemp(f"runs {scale}")
        rows = {row.id: row for row in table.rows}
        offset = 0.0 if scale == "paper" else 14.0
        for seed, noise in zip(SEEDS, (-0.1, 0.0, 0.1), strict=True):
            for id_, accuracy in (
                ("deit_tiny/dense", 72.2),
                ("deit_tiny/s2vite-30", 69.0),
                ("deit_small/dense", 79.9),
                ("deit_small/svite-30", 81.2),
                ("deit_small/svite_plus-5-50", 80.18),
            ):
                changes = {"top1_best_pct": accuracy + noise + offset, "top1_last_pct": accuracy + noise + offset - 0.5}
                write_record(root, rows[id_], scale, seed, **changes)
        write_record(root, rows["deit_small/svite-40"], scale, 0, top1_best_pct=80.3 + offset)
        write_record(root, rows["deit_small/svite-40"], scale, 1, "failed", reason="loss is nan at update 12")
        write_record(root, rows["deit_small/svite-50"], scale, 0, "running")
        write_record(root, rows["deit_small/svite-60"], scale, 0, "failed", reason="out of\nmemory \x1b[31m<b>&_%$|")
        write_record(root, rows["deit_small/svite-70"], scale, 0, "running", heartbeat=1.0)
        write_record(root, rows["deit_base/svite-30"], scale, 0, "cancelled")
        write_record(root, rows["deit_base/svite-40"], scale, 0, "submitted")
    return found


@pytest.fixture(scope="session")
def results(roots: dict[str, Path], table: Table) -> dict[str, Results]:
    return {scale: collect_results(table, table.rows, scale, SEEDS, root) for scale, root in roots.items()}


@pytest.fixture(scope="session")
def frames(results: dict[str, Results]) -> dict[str, pd.DataFrame]:
    return {scale: frame_of(found) for scale, found in results.items()}


@pytest.fixture(scope="session")
def views(results: dict[str, Results]) -> dict[str, View]:
    return {scale: view_of_results(found) for scale, found in results.items()}

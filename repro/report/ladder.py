"""The ladder of evidence: the highest rung that each row has reached across all scales.

counted   Params and MACs of the published backbone; every row has them
local     a finished run of a small model on embedded data
mini      a finished run of the published backbone on small images
weights   third-party weights, evaluated on the table's data set
paper     a finished run of the published training

A rung states what has been done, not its outcome, which is given by the verdicts (docs/evidence.md).
"""

from __future__ import annotations

from pathlib import Path

from repro.config.published_training import PUBLISHED_SCALE, is_published_training, row_config
from repro.config.signature import signatures
from repro.report.evidence import Evidence
from repro.tables.rows import Row, Table
from repro.tables.rungs import COUNTED, RUNGS, TRAINED, WEIGHTS


def highest_rung(table: Table, evidence: Evidence, root: Path) -> str:
    """Return the highest rung of a row, over this report's runs and runs without overrides at every scale."""
    row, config = evidence.row, evidence.config
    reached = {COUNTED}
    if any(one.are_comparable_on(table.dataset_of(row.id)) for one in evidence.adopted):
        reached.add(WEIGHTS)
    if evidence.n_done and (config.scale.name != PUBLISHED_SCALE or is_published_training(table, row, config)):
        reached.add(config.scale.name)
    reached |= {scale for scale in TRAINED if scale not in reached and _is_finished_at(scale, table, row, root)}
    return max(reached.intersection(RUNGS), key=list(RUNGS).index)


def _is_finished_at(scale: str, table: Table, row: Row, root: Path) -> bool:
    folders = {file.parent.name for file in (root / table.name / row.run_id / scale).glob("seed*/result.json")}
    if not folders:  # avoids composing a config, which is slower
        return False
    seeds = {int(seed) for name in folders if (seed := name.removeprefix("seed").partition("-")[0]).isdecimal()}
    own = {f"seed{seed}-{known[:8]}" for seed, known in signatures(row_config(row, scale), seeds).items()}
    return not own.isdisjoint(folders)

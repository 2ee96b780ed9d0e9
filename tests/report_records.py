"""Synthetic run records: what the launcher and the training leave on disk, written by hand."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from repro.config.compose import compose
from repro.files import write_json
from repro.report.cells import Results
from repro.report.claim_verdicts import judge_claims
from repro.report.claims import Claim, load_claims_file
from repro.report.collect import collect_results
from repro.report.evidence import Evidence
from repro.report.frame import frame_of
from repro.report.summary import summarise_results
from repro.report.view import View, view
from repro.runs.record import Record, record_for
from repro.runs.status import Status
from repro.runs.timing import Setting, Timing, write_timing
from repro.tables.rows import Row, Table

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_saving(
    root: Path, row: Row, saving_pct: float, device: str = "a device", threads: int = 2, turns: int = 7
) -> None:
    """Write a timing of seven turns whose median saving is this one, between 1 point less and 1 more (95 %)."""
    pairs = tuple((1.0, 1 - (saving_pct + noise) / 100) for noise in (-1.0, -0.5, -0.5, 0.0, 0.5, 0.5, 1.0)[:turns])
    setting = Setting(device, batch=8, dtype="float32", threads=threads, is_compiled=False)
    reference = f"{row.backbone}/dense"
    write_timing(root, Timing(row.table, row.id, reference, setting, pairs, "heads and neurons removed", 37.0, {}))


def write_record(
    root: Path,
    row: Row,
    scale: str,
    seed: int,
    state: str = "done",
    overrides: Sequence[str] = (),
    **changes: Any,
) -> Record:
    """Write the record of one run. `changes` go into result.json of a done run and into the status of another."""
    placeholder = ["data.root=images"] if scale == "paper" else []
    config = compose([*placeholder, *row.overrides_at(scale), f"seed={seed}", *overrides])
    record = record_for(root, config, row.table, row.id)
    record.create(config, row.table, row.id)
    if state != "done":
        status = {"attempt": 1, "heartbeat": time.time(), **changes}
        record.set_status(Status(state=state, **status))  # type: ignore[arg-type]
        return record
    record.set_status(Status(state="done", heartbeat=time.time(), attempt=1))
    write_json(record.path / "provenance.json", {"commit": COMMIT, "dirty_diff_sha256": None})
    result = {
        "schema": 1,
        "table": row.table,
        "row": row.id,
        "scale": scale,
        "seed": seed,
        "signature": config.signature,
        "dataset": config.data.name,
        "updates": 100,
        "epochs": 10,
        "wall_s": 12.5,
        "top1_last_pct": 79.0,
        "top1_best_pct": 79.5,
        "top1_best_epoch": 9,
        "top5_last_pct": 95.0,
        "top1_ema_last_pct": None,
        "loss_last": 0.5,
        "density": 0.5,
        "device": "cpu",
    }
    write_json(record.path / "result.json", {**result, **changes})
    return record


def collect(*arguments: Any, **options: Any) -> pd.DataFrame:
    """The frame of a report."""
    return frame_of(collect_results(*arguments, **options))


def frame_and_evidence(
    table: Table, rows: Sequence[Row], scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Evidence]]:
    """The frame of a report, and the evidence of each of its rows."""
    results = collect_results(table, rows, scale, seeds, root, overrides)
    return frame_of(results), [row.evidence for row in results.rows]


def view_of_results(results: Results) -> View:
    """What a reader sees of results."""
    claims = judge_claims(results)
    return view(results, claims, summarise_results(results, claims))


def claim_of(test: str, table: str = "table1", *, percent: float | None = None, **changes: Any) -> Claim:
    """A claim that is this test, in YAML, and nothing else; its tolerance is 0, or `percent` of the bound."""
    entry = {"id": "x", "table": table, "statement": "s", "source": "abstract", "reason": "r"}
    entry |= {"tolerance": 0} if percent is None else {"tolerance_pct": percent}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "claims.yaml"
        entry |= {"holds_if": yaml.safe_load(test), **changes}
        path.write_text(yaml.safe_dump({"claims": [entry]}), encoding="utf-8")
        (claim,) = load_claims_file(path).claims
    return claim

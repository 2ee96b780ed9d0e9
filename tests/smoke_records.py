"""Records of the smallest real run there is, at scale smoke, and processes that execute them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
from pathlib import Path

from repro.config.compose import compose
from repro.launch.local_run import preloads, run_rank
from repro.runs.record import Record, record_for
from repro.tables.loader import load_table

ROW = load_table("table1").select(["deit_tiny/s2vite-30"])[0]


def new_record(root: Path, *overrides: str) -> Record:
    """A record that nobody has executed yet."""
    config = compose([*ROW.overrides, "scale=smoke", "tracker=none", *overrides])
    record = record_for(root, config, "table1", ROW.id)
    record.create(config, "table1", ROW.id)
    return record


def in_child(record: Record) -> multiprocessing.process.BaseProcess:
    """A started process that executes the record, as a launch does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloads(record.config()))
    process = context.Process(target=run_rank, args=(record.path, record.claim_attempt(), {}, dict(os.environ)))
    process.start()
    return process

"""`repro train`: one run from overrides alone, or a Hydra sweep of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich.console import Console

from repro.composition import CONF_DIR, compose
from repro.config import PRETRAINED, Config
from repro.errors import UserError
from repro.launch.inline import Forked
from repro.launch.launching import jobs_if_any
from repro.launch.liveness import why_alive
from repro.launch.plan import PlannedRun, without_method
from repro.launch.progress import TableProgress
from repro.launch.reconcile import launcher_lock
from repro.launch.waiting import put_in_line, run_all, take_out_of_line
from repro.rows import Row, row_id
from repro.runs.record import record_for
from repro.runs.sharing import share_as

TABLE = "by_hand"
STOPPED = 130  # by Ctrl-C, as shells have it


def train(overrides: Sequence[str], console: Console) -> int:
    """Compose, run and show one run, after the run that it begins with, if any.

    The same command again goes on where it was, or shows what came out.
    """
    config = compose(overrides)
    return _run(_begun(config, without_method(overrides)), console)


def _begun(config: Config, others: Sequence[str]) -> PlannedRun:
    """The run of a config, with the runs that it begins with. `others` are the overrides that hold for every method."""
    method = config.method.starts_from
    if method is None or method == PRETRAINED:
        return _planned(config)
    return replace(_planned(config), starts_from=_begun(compose([*others, f"method={method}"]), others))


def _planned(config: Config) -> PlannedRun:
    method = config.method
    row = Row(
        table=TABLE,
        id=row_id(config.backbone.name, method.name, 100 * method.sparsity, 100 * method.data_sparsity),
        backbone=config.backbone.name,
        method=method.name,
        arch_sparsity_pct=100 * method.sparsity,
        data_sparsity_pct=100 * method.data_sparsity,
    )
    if not method.is_trainable:
        raise UserError(f"method={method.name}: no training for this method yet")
    return PlannedRun(row, config, record_for(Path(config.run.root), config, TABLE, row.id))


def _run(run: PlannedRun, console: Console) -> int:
    runs = [one for one in [*reversed(run.origins), run] if not one.is_done]
    root = Path(run.config.run.root)
    share_as(root)
    finished = True
    try:
        with launcher_lock(root):
            jobs = jobs_if_any(runs)
            for one in runs:
                alive = why_alive(one.record, one.record.status(), jobs, time.time())
                if alive:
                    raise UserError(f"{one.record.path}: somebody is at this run ({alive})")
            for one in runs:
                one.create()
            put_in_line(runs)
        if runs:
            with TableProgress(run.row.id, runs, runs, console) as progress:
                finished = run_all(runs, 1, Forked, progress.watch)
    finally:  # a Ctrl-C before the first one was started
        take_out_of_line(runs)
    status, result = run.record.status(), run.record.result()
    console.print(f"{status.state}: {run.record.path}", soft_wrap=True, markup=False)
    if status.reason:
        console.print(f"  {status.reason}", soft_wrap=True, markup=False)
    for name, value in (result or {}).items():
        console.print(f"  {name}: {value}", markup=False)
    if not finished:
        return STOPPED
    return 0 if result is not None else 1


def train_many(overrides: Sequence[str]) -> int:
    """A Hydra sweep (`backbone=deit_tiny,deit_small seed=0,1`): every run is checked before the first one starts."""
    errors = []
    own = [text for text in overrides if not text.startswith("hydra")]
    parsed = OverridesParser.create().parse_overrides(own)
    for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None):
        for single in batch:
            try:
                compose(single)
            except UserError as error:
                errors.append(f"{' '.join(single)}: {error}")
    if errors:
        raise UserError("\n".join(errors))
    codes: list[int] = []

    def one(_: DictConfig) -> None:
        codes.append(train(HydraConfig.get().overrides.task, Console(highlight=False)))
        if codes[-1] == STOPPED:
            raise KeyboardInterrupt  # the others are not wanted either

    sys.argv = ["repro train", "--multirun", *overrides]
    hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")(one)()
    return max(codes, default=0)

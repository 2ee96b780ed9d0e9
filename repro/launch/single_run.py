"""`repro train`: a single run or a sweep that belongs to no table, on this machine or on Slurm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from repro.config import PRETRAINED, Config, InlineLauncher
from repro.config.compose import compose
from repro.config.overrides import split_sweep, without_method
from repro.errors import UserError, count_of
from repro.launch.history import accuracies
from repro.launch.launch import INTERRUPTED, LaunchOptions, launch
from repro.launch.liveness import why_alive
from repro.launch.plan import PlannedRun, row_of
from repro.launch.queue import queue_of
from repro.locations import groups
from repro.runs.permissions import adopt_group_umask
from repro.runs.record import Record, record_for
from repro.runs.status import MAX_ATTEMPTS
from repro.tables.rows import SINGLE_RUNS
from repro.tracking.mirror_file import push_command
from repro.tracking.sweep import agent_run_id, check_agent_run, mirror_into_agent_run, needs_push_to_agent


def train(overrides: Sequence[str], console: Console, yes: bool = False) -> int:
    """Train one run, after the run that it starts from, print its result, and return the exit code.

    A run that was interrupted is resumed; for a finished run this only prints the result. Raises `UserError` if the run
    is already running.
    """
    run = planned_run(compose(overrides), without_method(overrides))
    status = run.record.status()
    alive = why_alive(run.record, status, queue_of([run]), time.time())
    if alive:
        raise UserError(f"{run.record.path}: already running ({alive})")
    if agent_run_id() is not None:
        check_agent_run(run.record.path, Path(run.config.run.root))
        run.create()
        mirror_into_agent_run(run.record)
    code = _launch([run], run.row.id, console, yes)
    if error := _push_to_agent(run.record):
        console.print(f"the sweep does not have the result: {error}", soft_wrap=True, markup=False)
    return code


def train_sweep(overrides: Sequence[str], console: Console, yes: bool = False) -> int:
    """Train each run of a sweep (`backbone=deit_tiny,deit_small seed=0,1`) and return the exit code.

    All configs are composed before the first run starts. Raises one `UserError` with the errors of all runs.
    """
    runs: dict[Path, PlannedRun] = {}
    places: set[tuple[str, str]] = set()
    errors: dict[str, str] = {}
    sweep = split_sweep(overrides, groups())
    for own in sweep:
        try:
            run = planned_run(compose(own), without_method(own))
        except UserError as error:
            errors.setdefault(str(error), " ".join(own))
            continue
        varied = [text for text in own if any(text not in other for other in sweep)]
        places.add((run.config.launcher.model_dump_json(), run.config.run.root))
        runs.setdefault(run.record.path, replace(run, label=" ".join([run.row.id, *varied])))
    if errors:
        raise UserError("\n".join(f"{words}: {error}" for error, words in errors.items()))
    if len(places) > 1:
        raise UserError("all runs of a sweep have one launcher and one run.root")
    return _launch(list(runs.values()), count_of(len(runs), "run"), console, yes)


def planned_run(config: Config, others: Sequence[str], seen: Sequence[str] = ()) -> PlannedRun:
    """Return the run of a config, with the runs that it starts from.

    `others` are the overrides that also apply to the methods of those runs; `seen` are the methods of runs that start
    from this one, and its own. Raises `UserError` if the method has no training yet, and for a cycle.
    """
    method = config.method
    if not method.is_trainable:
        raise UserError(f"method={method.name}: no training for this method yet")
    row = row_of(config, SINGLE_RUNS)
    run = PlannedRun(row, config, record_for(Path(config.run.root), config, SINGLE_RUNS, row.id))
    if method.starts_from is None or method.starts_from == PRETRAINED:
        return run
    chain = [*seen, method.starts_from]
    if method.starts_from in seen:
        raise UserError(f"method.starts_from: {' starts from '.join(chain)}; correct conf/method")
    return replace(run, starts_from=planned_run(compose([*others, f"method={method.starts_from}"]), others, chain))


def _launch(runs: Sequence[PlannedRun], name: str, console: Console, yes: bool) -> int:
    config = runs[0].config
    root = Path(config.run.root)
    adopt_group_umask(root)
    own = {run.record.path: run for run in runs}
    every = {each.record.path: each for run in runs for each in run.chain} | own  # `own` have labels
    asks = not isinstance(config.launcher, InlineLauncher)
    options = LaunchOptions(True, yes or not asks, MAX_ATTEMPTS, root, "run the same command again")
    outcome = launch(name, list(every.values()), options, console)
    for run in runs:
        _print_result(run, console, is_short=len(runs) > 1)
    if outcome.is_interrupted:
        return INTERRUPTED
    if not config.launcher.runs_here:
        return 1 if outcome.failed else 0
    return 0 if all(run.is_done for run in runs) else 1


def _print_result(run: PlannedRun, console: Console, is_short: bool) -> None:
    """Print the state and the result of a run; if `is_short`, only its state and accuracy."""
    status, result = run.record.status(), run.record.result()
    if is_short:
        accuracy = "" if result is None else f", {accuracies(result)}"
        console.print(f"{run.label}: {status.state}{accuracy}: {run.record.path}", soft_wrap=True, markup=False)
        return
    console.print(f"{status.state}: {run.record.path}", soft_wrap=True, markup=False)
    if status.reason:
        console.print(f"  {status.reason}", soft_wrap=True, markup=False)
    for name, value in (result or {}).items():
        console.print(f"  {name}: {f'{value:.6g}' if isinstance(value, float) else value}", markup=False)


def _push_to_agent(record: Record) -> str:
    """Push a finished record to the W&B run of a sweep agent if needed; return the error, empty if there is none."""
    if not needs_push_to_agent(record):
        return ""
    from repro.tracking.push import push  # imports the client

    try:
        (pushed,) = push([record])
    except UserError as error:  # no key: the run has finished all the same
        return f"{error}; then {push_command(record.path)}"
    return pushed.failed

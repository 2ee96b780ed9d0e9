"""Asks for confirmation before a launch that costs GPU hours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from repro.config import Launcher, SlurmLauncher
from repro.errors import UserError, count_of
from repro.launch.cost_estimate import estimates, known_throughput
from repro.launch.decide import Decision, starting
from repro.launch.plan import PlannedRun
from repro.launch.print_plan import print_plan
from repro.tables.rungs import MINI, PAPER

ASKS_AT_SCALES = (PAPER, MINI)


def confirm(name: str, decisions: Sequence[Decision], yes: bool, console: Console) -> set[Path] | None:
    """Print the plan and ask the user; return the confirmed record folders, or None if no confirmation is needed.

    It is needed to submit runs to a cluster, and to train at the scales of the published backbones anywhere. Raises
    `UserError` if the answer is no, or if stdin is not a terminal.
    """
    config = decisions[0].run.config
    launcher, scale = config.launcher, config.scale.name
    runs = starting(decisions)
    if yes or (launcher.runs_here and scale not in ASKS_AT_SCALES):
        return None
    if not runs:
        return set()
    costs = estimates([each.run for each in decisions], known_throughput, None)
    print_plan(f"{name} at scale {scale}", decisions, costs, console)
    request = _request(len(runs), scale, launcher)
    if not sys.stdin.isatty():
        raise UserError(f"{request}: use --yes to start them without a terminal")
    console.print(request, soft_wrap=True)
    try:
        answer = input("start? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError("nothing was started")
    return {run.record.path for run in runs}


def only_confirmed(confirmed: set[Path] | None, runs: Sequence[PlannedRun], console: Console) -> list[PlannedRun]:
    """Return the runs that the user has confirmed (all if `confirmed` is None).

    A run that was not to be started when the plan was printed is left out, with all runs that start from it.
    """
    if confirmed is None:
        return list(runs)
    unconfirmed = {run.record.path for run in runs} - confirmed
    found = [run for run in runs if not {each.record.path for each in run.chain} & unconfirmed]
    if len(found) < len(runs):
        console.print(f"not started, because not in the plan: {count_of(len(runs) - len(found), 'run')}; launch again")
    return found


def _request(count: int, scale: str, launcher: Launcher) -> str:
    runs = count_of(count, "run")
    if isinstance(launcher, SlurmLauncher):
        nodes = count_of(launcher.nodes, "node")
        gpus = count_of((launcher.gpus_per_node or 0) * launcher.nodes, "GPU")
        cpus = count_of(launcher.ranks * launcher.cpus_per_task, "CPU")
        return (
            f"{runs} at scale {scale}, each on {nodes} with {gpus} and {cpus} for at most {launcher.time_min} min at a "
            f"time, {launcher.parallel} at once, partition {launcher.partition or '(default)'}"
        )
    return f"{runs} at scale {scale} on this machine ({launcher.name})"

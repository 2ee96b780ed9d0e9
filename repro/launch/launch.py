"""A launch: decides what to start under the lock, starts it, and waits for runs on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from repro.config import InlineLauncher, LocalLauncher, SlurmLauncher
from repro.data.layouts import find_data
from repro.errors import UserError, count_of, first_few
from repro.launch import slurm
from repro.launch.confirm import confirm, only_confirmed
from repro.launch.data_checks import check_data
from repro.launch.decide import Decision, decide, starting
from repro.launch.local_pool import dequeue, enqueue, run_all
from repro.launch.local_run import LocalLaunch
from repro.launch.lock import launch_lock
from repro.launch.plan import PlannedRun
from repro.launch.progress import TableProgress
from repro.launch.queue import job_owners, queue_of, read_queue
from repro.launch.slurm_parameters import idle_gpus
from repro.tracking.login import mirror_mode

INTERRUPTED = 130  # exit code, by the shells' convention


@dataclass(frozen=True)
class LaunchOptions:
    """Options of the command line. `show_status` is the command that shows the state of these runs."""

    retry: bool
    yes: bool
    max_attempts: int
    root: Path
    show_status: str = "repro status"


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    is_interrupted: bool  # by Ctrl-C
    failed: Sequence[tuple[PlannedRun, str]]  # runs that need a fix before any launch can finish them, with the reason
    unfinished: Sequence[PlannedRun]  # runs on this machine that the same command would resume


def launch(name: str, runs: Sequence[PlannedRun], options: LaunchOptions, console: Console) -> Outcome:
    """Start runs that are neither done nor alive; wait for runs on this machine, but not for Slurm jobs.

    A run that was submitted to Slurm counts as neither failed nor unfinished. A run that failed earlier and is not
    started again counts as failed. Raises `UserError` if the user does not confirm the launch, if WANDB_MODE is not a
    mode, if the data are not those of finished runs, or if this machine cannot start the runs.
    """
    for run in runs:
        if not run.is_done:
            mirror_mode(run.config)  # raises for a WANDB_MODE that does not exist
    check_data(runs)
    launcher = runs[0].config.launcher
    if idle := idle_gpus(launcher):
        console.print(idle, soft_wrap=True)
    if isinstance(launcher, SlurmLauncher):
        decisions = _launch_on_slurm(name, runs, launcher, options, console)
        left = [(each.run, _why_failed(each)) for each in decisions if _needs_user_action(each)]
        return Outcome(False, left, [])
    is_finished, decisions = _launch_here(name, runs, launcher, options, console)
    failed = [each for each in decisions if each.run.state == "failed" or _needs_user_action(each)]
    ended = {each.run.record.path for each in failed}
    unfinished = [run for run in runs if run.state not in ("done", "missing") and run.record.path not in ended]
    return Outcome(not is_finished, [(each.run, _why_failed(each)) for each in failed], unfinished)


def _launch_here(
    name: str,
    runs: Sequence[PlannedRun],
    launcher: InlineLauncher | LocalLauncher,
    options: LaunchOptions,
    console: Console,
) -> tuple[bool, list[Decision]]:
    """Execute runs on this machine; return whether all of them have ended without an interrupt, and the decisions."""
    decisions = decide(runs, queue_of(runs), options.retry, options.max_attempts)
    confirmed = confirm(name, decisions, options.yes, console)
    chosen: list[PlannedRun] = []
    with TableProgress(name, runs, console) as progress:
        try:
            with launch_lock(options.root):
                decisions = decide(runs, queue_of(runs), options.retry, options.max_attempts)
                print_not_started(decisions, console)
                chosen = only_confirmed(confirmed, starting(decisions), console)
                if not chosen:
                    return True, decisions
                local = LocalLaunch(launcher, runs[0].config.scale.cpu_threads)
                create_records(chosen, options.retry)
                enqueue(chosen)
            return run_all(chosen, local.parallel, local.start, progress.watch), decisions
        finally:  # for a Ctrl-C before `run_all`
            dequeue(chosen)


def _launch_on_slurm(
    name: str, runs: Sequence[PlannedRun], launcher: SlurmLauncher, options: LaunchOptions, console: Console
) -> list[Decision]:
    """Submit runs to Slurm and return the decisions."""
    if not slurm.is_available():
        raise UserError("launcher=slurm: no sbatch on this machine; launch on a login node, or with launcher=local")
    from repro.launch.submit import submit  # imports submitit

    queue = read_queue(options.root, job_owners(runs))
    decisions = decide(runs, queue, options.retry, options.max_attempts)
    note_missing_data(starting(decisions), console)
    confirmed = confirm(name, decisions, options.yes, console)
    with launch_lock(options.root):
        queue = read_queue(options.root, job_owners(runs))
        decisions = decide(runs, queue, options.retry, options.max_attempts)
        print_not_started(decisions, console)
        chosen = only_confirmed(confirmed, starting(decisions), console)
        if not chosen:
            console.print("nothing to submit")
            return decisions
        create_records(chosen, options.retry)
        arrays = submit(chosen, launcher, options.root, queue, options.max_attempts)
    text = (
        f"submitted {count_of(len(chosen), 'run')} in {count_of(arrays, 'array')}; their state: {options.show_status}"
    )
    console.print(text, soft_wrap=True, markup=False)
    return decisions


def note_missing_data(runs: Sequence[PlannedRun], console: Console) -> None:
    """Print which data are missing or incomplete on this machine; the compute nodes may have their own copy."""
    data = {(run.config.data.name, run.config.data.root): run.config.data for run in runs}
    for each in data.values():
        try:
            find_data(each)
        except UserError as error:
            text = f"not found on this machine, so the compute nodes must have it: {error}"
            console.print(text, soft_wrap=True, markup=False)


def create_records(runs: Sequence[PlannedRun], retry: bool) -> None:
    """Create the records; `retry` resets their number of starts without progress."""
    for run in runs:
        run.create()
        if retry:
            status = run.record.status()
            run.record.set_status(status.moved(status.state, submissions=0))


def print_not_started(decisions: Sequence[Decision], console: Console) -> None:
    """Print which runs are neither done nor started, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for decision in decisions:
        if decision.action != "start" and decision.why != "done":
            reasons.setdefault(decision.why, []).append(decision.run.row.id)
    for why, ids in reasons.items():
        console.print(f"not started: {first_few(ids, 1)}: {why}", soft_wrap=True)


def _needs_user_action(decision: Decision) -> bool:
    """Return whether a run is not done and neither this launch nor the next one would start it."""
    return decision.action == "leave" and decision.run.state not in ("done", "missing")


def _why_failed(decision: Decision) -> str:
    # The reason in another state ("stopped by SIGUSR2") does not explain why the run is not started.
    reason = decision.run.record.status().reason if decision.run.state == "failed" else None
    return reason or decision.why

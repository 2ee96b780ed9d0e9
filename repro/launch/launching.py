"""One launch: decide under the lock, show and ask where it costs other people's machines, start, and wait or leave."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from repro.config import InlineLauncher, Launcher, LocalLauncher, SlurmLauncher
from repro.errors import UserError
from repro.launch import slurm
from repro.launch.costing import costs, published
from repro.launch.gpus import shares_here
from repro.launch.plan import PlannedRun
from repro.launch.progress import TableProgress
from repro.launch.reconcile import Decision, decide, launcher_lock, starting
from repro.launch.request import idle_gpus
from repro.launch.showing import print_plan
from repro.launch.submit import mend, submit, token_owners
from repro.launch.waiting import Worker, parallelism, put_in_line, run_all, take_out_of_line

ASKS_AT_SCALE = "paper"


@dataclass(frozen=True)
class Wishes:
    """What the person at the command line said. `show_status` is the command that shows these runs."""

    retry: bool
    yes: bool
    max_attempts: int
    root: Path
    show_status: str = "repro status"


@dataclass(frozen=True)
class Outcome:
    """What a launch has to say at its end, in its exit code too.

    Attributes:
        is_interrupted: whether Ctrl-C stopped it.
        failed: runs that no launch will finish before somebody has looked at them, and why.
        unfinished: runs of this machine that the same command would go on with.
    """

    is_interrupted: bool
    failed: Sequence[tuple[PlannedRun, str]]
    unfinished: Sequence[PlannedRun]


def launch(name: str, runs: Sequence[PlannedRun], wishes: Wishes, console: Console) -> Outcome:
    """Start what is to be started; say how it ended.

    Waits for runs on this machine. Leaves those of Slurm to Slurm: what is in the queue is neither failed nor
    unfinished, however soon it fails there; what had failed before, and was left alone, is. Raises `UserError` where
    it may not ask.
    """
    launcher = runs[0].config.launcher
    if idle := idle_gpus(launcher):
        console.print(idle, soft_wrap=True)
    if isinstance(launcher, SlurmLauncher):
        left = [each for each in _to_slurm(runs, launcher, wishes, console) if _is_left_alone(each)]
        return Outcome(False, [(each.run, _why_failed(each)) for each in left], [])
    finished, decisions = _here(name, runs, launcher, wishes, console)
    failed = [each for each in decisions if each.run.state == "failed" or _is_left_alone(each)]
    ended = {each.run.record.path for each in failed}
    unfinished = [run for run in runs if run.state not in ("done", "missing") and run.record.path not in ended]
    return Outcome(not finished, [(each.run, _why_failed(each)) for each in failed], unfinished)


def _is_left_alone(decision: Decision) -> bool:
    """Whether this launch and the next will not start this run, although it is not done."""
    return decision.action == "leave" and decision.run.state not in ("done", "missing")


def _why_failed(decision: Decision) -> str:
    # What a run wrote before it was given up ("stopped by SIGUSR2") is not why it is left.
    reason = decision.run.record.status().reason if decision.run.state == "failed" else None
    return reason or decision.why


def _here(
    name: str,
    runs: Sequence[PlannedRun],
    launcher: InlineLauncher | LocalLauncher,
    wishes: Wishes,
    console: Console,
) -> tuple[bool, list[Decision]]:
    """Start what is to be started and wait for it; returns whether nobody stopped it, and what was decided."""
    confirmed = confirm(runs, jobs_if_any(runs), wishes, console)
    chosen: list[PlannedRun] = []
    try:
        with launcher_lock(wishes.root):
            jobs = _mended(runs, wishes.root, jobs_if_any(runs), console)
            decisions = decide(runs, jobs, wishes.retry, wishes.max_attempts)
            explain(decisions, console)
            chosen = only(confirmed, starting(decisions), console)
            if not chosen:
                return True, decisions
            start, parallel = _starter(launcher, runs[0].config.scale.cpu_threads, wishes.root)
            prepare(chosen, wishes.retry)
            put_in_line(chosen)
        with TableProgress(name, list(runs), chosen, console) as progress:
            finished = run_all(chosen, parallel, start, progress.watch)
    finally:  # a Ctrl-C before the first one was started
        take_out_of_line(chosen)
    return finished, decisions


def jobs_if_any(runs: Iterable[PlannedRun]) -> Mapping[str, slurm.Job] | None:
    """Slurm's queue; None on a machine that cannot ask: runs that Slurm has are then taken for alive."""
    if not slurm.is_here():
        return None
    who = owners(runs)
    try:
        return slurm.queue(who)
    except UserError:
        return None  # its client is installed, and no cluster behind it


def owners(runs: Iterable[PlannedRun]) -> set[int]:
    """Whose jobs may be those of these runs, or of a launch that died: people who share a folder must not take each
    other's jobs for dead."""
    found, roots = set(), set()
    for run in runs:
        roots.add(run.config.run.root)
        user = run.record.status().user
        if user is not None:
            found.add(user)
        else:  # written before the status said so, or not there
            with suppress(OSError):
                found.add((run.record.path / "status.json").stat().st_uid)
    return found.union(*(token_owners(Path(root)) for root in roots))


def _mended(
    runs: Sequence[PlannedRun], root: Path, jobs: Mapping[str, slurm.Job] | None, console: Console
) -> Mapping[str, slurm.Job] | None:
    """Clear up after launches that died; returns Slurm's queue after that. The caller holds the launcher's lock."""
    if jobs is None:
        return None
    said = mend(root, jobs)
    for line in said:
        console.print(line, soft_wrap=True)
    return slurm.queue(owners(runs)) if said else jobs


def _starter(
    launcher: InlineLauncher | LocalLauncher, threads: int, root: Path
) -> tuple[Callable[[PlannedRun], Worker], int]:
    """What starts a run here, and how many at once. Raises `UserError` where this machine has not what they need."""
    parallel = parallelism(launcher.parallel, threads)
    if isinstance(launcher, LocalLauncher):
        from repro.launch.local import LocalJobs

        shares = shares_here(launcher, parallel)
        return LocalJobs(launcher, root, shares).start, len(shares)
    from repro.launch.inline import Forked

    return Forked, parallel


def prepare(runs: Sequence[PlannedRun], retry: bool) -> None:
    """Make the records; a retry starts counting submissions anew."""
    for run in runs:
        run.create()
        if retry:
            status = run.record.status()
            run.record.set_status(status.moved(status.state, submissions=0))


def explain(decisions: Sequence[Decision], console: Console) -> None:
    """Say what is not started although it is not done, with the reason; runs with the same reason in one line."""
    reasons: dict[str, list[str]] = {}
    for decision in decisions:
        if decision.action != "start" and decision.why != "done":
            reasons.setdefault(decision.why, []).append(decision.run.row.id)
    for why, ids in reasons.items():
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        console.print(f"not started: {ids[0]}{more}: {why}", soft_wrap=True)


def _to_slurm(runs: Sequence[PlannedRun], launcher: SlurmLauncher, wishes: Wishes, console: Console) -> list[Decision]:
    """Submit what is to be submitted; returns what was decided."""
    if not slurm.is_here():
        raise UserError("launcher=slurm: no sbatch on this machine; launch from a login node, or with launcher=local")
    confirmed = confirm(runs, slurm.queue(owners(runs)), wishes, console)
    with launcher_lock(wishes.root):
        jobs = _mended(runs, wishes.root, slurm.queue(owners(runs)), console)
        decisions = decide(runs, jobs, wishes.retry, wishes.max_attempts)
        explain(decisions, console)
        chosen = only(confirmed, starting(decisions), console)
        prepare(chosen, wishes.retry)
        if not chosen:
            console.print("nothing to submit")
            return decisions
        arrays = submit(chosen, launcher, wishes.root, wishes.max_attempts)
    console.print(
        f"submitted {len(chosen)} runs in {arrays} arrays; {wishes.show_status} shows them",
        soft_wrap=True,
        markup=False,
    )
    return decisions


def confirm(
    runs: Sequence[PlannedRun], jobs: Mapping[str, slurm.Job] | None, wishes: Wishes, console: Console
) -> set[Path] | None:
    """Show the plan and ask; returns the records that were said yes to, None where no question was due.

    Due before anything is submitted to a cluster, and before a training of published length on whatever machine. Raises
    `UserError` for a no, or where nobody can answer.
    """
    launcher, scale = runs[0].config.launcher, runs[0].config.scale.name
    decisions = decide(runs, jobs, wishes.retry, wishes.max_attempts)
    chosen = starting(decisions)
    if wishes.yes or (launcher.runs_here and scale != ASKS_AT_SCALE):
        return None
    if not chosen:
        return set()
    prices = costs([each.run for each in decisions], published, None)
    print_plan(f"{runs[0].row.table} at scale {scale}", decisions, prices, console)
    text = _request(len(chosen), scale, launcher)
    if not sys.stdin.isatty():
        raise UserError(f"{text}: say --yes to start them (nobody is there to ask)")
    console.print(text, soft_wrap=True)
    try:
        answer = input("start? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError("nothing was started")
    return {run.record.path for run in chosen}


def _request(count: int, scale: str, launcher: Launcher) -> str:
    if isinstance(launcher, SlurmLauncher):
        gpus = (launcher.gpus_per_node or 0) * launcher.nodes
        return (
            f"{count} runs at scale {scale}, each on {launcher.nodes} nodes with {gpus} GPUs and "
            f"{launcher.ranks * launcher.cpus_per_task} CPUs for at most {launcher.time_min} min at a time, "
            f"{launcher.parallel} at once, partition {launcher.partition or 'of the site'}"
        )
    return f"{count} runs at scale {scale} on this machine ({launcher.name}), each for as long as it takes"


def only(confirmed: set[Path] | None, chosen: Sequence[PlannedRun], console: Console) -> list[PlannedRun]:
    """Of the runs to start those that somebody said yes to (None: all).

    Time has passed at the question: a run may have died meanwhile, of which the plan said that it was alive. It is
    left, and so is a run that would begin with its weights.
    """
    if confirmed is None:
        return list(chosen)
    left = {run.record.path for run in chosen} - confirmed
    found = [run for run in chosen if not {one.record.path for one in [run, *run.origins]} & left]
    if len(found) < len(chosen):
        console.print(f"not started: {len(chosen) - len(found)} runs that the plan did not show: launch again")
    return found

"""The queue of a launch on this machine: seen from other machines, shared with other launches, interrupted."""

from __future__ import annotations

import io
import os
import platform
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from repro.files import write_json
from repro.interruption import SIGNALS
from repro.launch.decide import decide
from repro.launch.launch import LaunchOptions, launch
from repro.launch.local_pool import enqueue, is_enqueued, run_all
from repro.launch.local_run import LocalRun
from repro.launch.plan import PlannedRun, plan
from repro.runs.status import STALE_AFTER_S, State
from repro.tables.loader import load_table


@pytest.fixture
def runs(tmp_path: Path) -> list[PlannedRun]:
    """A run, another one, and one that starts from the first."""
    table = load_table("table1")
    rows = table.select(["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/omp-30"])
    every = plan(table, rows, "smoke", [0], tmp_path)
    for run in every:
        run.create()
    enqueue(every)
    return every


class Worker:
    """A run that ends after `looks` calls of has_ended, in the state `ends`."""

    def __init__(self, run: PlannedRun, looks: int, ends: State = "done") -> None:
        self.run, self.looks, self.ends = run, looks, ends

    def has_ended(self) -> bool:
        self.looks -= 1
        if self.looks < 0:
            self.run.record.set_status(self.run.record.status().moved(self.ends))
            if self.ends == "done":
                write_json(self.run.record.path / "result.json", {})
        return self.looks < 0

    def stop(self) -> None:
        raise AssertionError

    def kill(self) -> None:
        raise AssertionError


def test_a_queue_is_alive_to_other_machines_for_as_long_as_it_lasts(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run takes ten minutes by the clock; another machine looks at the others all the time."""
    now = 1_700_000_000.0
    clock = [now]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: clock.__setitem__(0, clock[0] + 10.0))
    for run in runs:
        run.record.set_status(run.record.status().moved("submitted"))
    seen: list[set[str]] = []

    def look_from_elsewhere(_: list[Path]) -> None:
        if clock[0] > now + STALE_AFTER_S:
            with monkeypatch.context() as there:
                there.setattr(platform, "node", lambda: "another-node")
                seen.append({each.action for each in decide(runs[1:], None, False, 3, now=clock[0])})

    started = []

    def start(run: PlannedRun) -> Worker:
        started.append(run.row.id)
        return Worker(run, 60 if len(started) == 1 else 0)

    assert run_all(runs, 1, start, look_from_elsewhere)
    assert seen[:40] == [{"keep"}] * 40
    assert started == [run.row.id for run in runs]


def test_a_run_that_another_launch_has_taken_is_left_out_with_its_dependents(runs: list[PlannedRun]) -> None:
    first, other, starts_from_first = runs
    taken = replace(first.record.status(), host="another-node", pid=1)
    first.record.set_status(taken)
    started = []

    def start(run: PlannedRun) -> Worker:
        started.append(run.row.id)
        return Worker(run, 0)

    assert run_all(runs, 2, start, lambda _: None)
    assert started == [other.row.id]
    assert first.record.status() == taken
    assert starts_from_first.record.status().state == "planned"
    assert starts_from_first.record.status().submissions == 0


@pytest.mark.parametrize("ends", ["requeued", "cancelled", "running", "failed", "done"])
def test_the_dependents_of_a_run_that_was_stopped_wait_for_a_later_launch(runs: list[PlannedRun], ends: State) -> None:
    """Killed, cancelled, taken over elsewhere; if it has failed, they fail too."""
    first, other, starts_from_first = runs
    started = []

    def start(run: PlannedRun) -> Worker:
        started.append(run.row.id)
        return Worker(run, 2, ends if run is first else "done")

    assert run_all(runs, 2, start, lambda _: None)
    begun = ends in ("failed", "done")
    assert started == [first.row.id, other.row.id, *([starts_from_first.row.id] if begun else [])]
    if not begun:
        assert starts_from_first.record.status().state == "planned"
        assert starts_from_first.record.status().submissions == 0


@pytest.mark.parametrize("ended", [("failed", "the loss is not finite"), ("requeued", "stopped by SIGUSR2")])
def test_runs_that_no_launch_will_finish_are_failed(tmp_path: Path, ended: tuple[State, str]) -> None:
    """dense has failed, or was started five times without progress; omp-30 starts from it."""
    table = load_table("table1")
    every = plan(table, table.select(["deit_tiny/omp-30"]), "smoke", [0], tmp_path)
    dense, omp = every
    dense.create()
    dense.record.set_status(dense.record.status().moved(ended[0], reason=ended[1], submissions=5))
    outcome = launch("table1", every, LaunchOptions(False, True, 5, tmp_path), Console(file=io.StringIO()))
    stuck = "started 5 times without progress; see its logs, then use --retry"
    left, words = ("failed; use --retry", ended[1]) if ended[0] == "failed" else (stuck, stuck)
    origin = f"starts from deit_tiny/dense, which is not done: {left}"
    assert list(outcome.failed) == [(dense, words), (omp, origin)]
    assert (outcome.is_interrupted, outcome.unfinished) == (False, [])


class Listener:
    """A run that ends when it is asked to, unless it does not listen; `told` is what it was asked."""

    def __init__(self, run: PlannedRun, listens: bool = True) -> None:
        self.run, self.listens = run, listens
        self.told: list[str] = []

    def has_ended(self) -> bool:
        return "kill" in self.told or (self.listens and "stop" in self.told)

    def stop(self) -> None:
        self.told.append("stop")

    def kill(self) -> None:
        self.told.append("kill")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_while_a_run_is_being_started_loses_no_run(runs: list[PlannedRun], number: signal.Signals) -> None:
    """An exception would lose the process that is being started."""
    started: list[Listener] = []

    def start(run: PlannedRun) -> Listener:
        started.append(Listener(run))
        for _ in range(1 if number == signal.SIGINT else 3):  # as a closing terminal may do
            os.kill(os.getpid(), number)
        return started[-1]

    _, begun, planned = runs
    assert is_enqueued(begun.record.status())
    begun.record.set_status(replace(begun.record.status(), update=3, submissions=2))
    before = signal.getsignal(number)
    assert not run_all(runs, 2, start, lambda _: None)
    assert signal.getsignal(number) == before
    assert [(each.run, each.told) for each in started] == [(runs[0], ["stop"])]
    states = [(each.record.status().state, each.record.status().submissions) for each in (begun, planned)]
    assert states == [("requeued", 1), ("planned", 0)]


def test_a_second_ctrl_c_kills_runs_that_do_not_listen(runs: list[PlannedRun]) -> None:
    started: list[Listener] = []

    def start(run: PlannedRun) -> Listener:
        started.append(Listener(run, listens=False))
        return started[-1]

    def press(at_work: list[Path]) -> None:
        if at_work:
            os.kill(os.getpid(), signal.SIGINT)

    assert not run_all(runs, 1, start, press)
    (first,) = started
    assert set(first.told) == {"stop", "kill"}
    assert first.told[-1] == "kill"


def test_the_other_runs_stop_if_one_cannot_be_started(runs: list[PlannedRun]) -> None:
    started: list[Listener] = []

    def start(run: PlannedRun) -> Listener:
        if started:
            raise OSError("No space left on device")
        started.append(Listener(run))
        return started[0]

    with pytest.raises(OSError, match="No space left"):
        run_all(runs, 2, start, lambda _: None)
    assert started[0].told == ["stop"]
    assert not any(is_enqueued(run.record.status()) for run in runs if run is not started[0].run)


def test_a_third_ctrl_c_ends_a_launch_that_hangs(runs: list[PlannedRun]) -> None:
    """Its log folder is on a file system that is down."""

    def start(_: PlannedRun) -> Listener:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        run_all(runs, 1, start, lambda _: None)
    assert {run.record.status().state for run in runs} == {"planned"}


def test_ignored_signals_stop_nothing(runs: list[PlannedRun]) -> None:
    """nohup: the terminal may be closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_all(runs, 1, lambda run: Worker(run, 0), lambda _: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert {run.state for run in runs} == {"done"}


def test_ctrl_c_before_the_first_run_is_started_empties_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five of these would count as five starts without progress."""
    table = load_table("table1")
    every = plan(table, table.select(["deit_tiny/dense", "deit_tiny/omp-30"]), "smoke", [0], tmp_path)

    release = FileLock.release

    def press(lock: FileLock, force: bool = False) -> None:
        release(lock, force)
        if {run.record.status().state for run in every} == {"submitted"}:
            raise KeyboardInterrupt

    monkeypatch.setattr(FileLock, "release", press)
    with pytest.raises(KeyboardInterrupt):
        launch("table1", every, LaunchOptions(False, True, 5, tmp_path), Console(file=io.StringIO()))
    monkeypatch.undo()
    assert {(run.state, run.record.status().submissions) for run in every} == {("planned", 0)}


def test_a_run_is_asked_to_stop_before_its_end_is_noticed(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may end a run at once: it has not failed then."""
    told: list[str] = []

    class Ends(Listener):
        def stop(self) -> None:
            told.append("stop")

        def has_ended(self) -> bool:
            told.append("look")
            return True

    monkeypatch.setattr(time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert not run_all(runs, 1, Ends, lambda _: None)
    assert told == ["stop", "look"]


def test_only_the_fork_server_blocks_signals(runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three Ctrl-C must end a launch whose imports hang."""
    blocked: dict[str, set[int]] = {}

    def note(what: str) -> None:
        blocked[what] = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    monkeypatch.setattr(forkserver, "ensure_running", lambda: note("server"))
    monkeypatch.setattr(BaseProcess, "start", lambda _: note("start"))
    LocalRun(runs[0].record, runs[0].config)
    assert set(SIGNALS) <= blocked["server"]
    assert not set(SIGNALS) & blocked["start"]


TERMINAL_CLOSES = """
import sys
from pathlib import Path
from repro.launch.plan import plan
from repro.launch.local_pool import enqueue, run_all
from repro.tables.loader import load_table

root = Path(sys.argv[1])
table = load_table("table1")
runs = plan(table, table.select(["deit_tiny/dense", "deit_tiny/svite-30"]), "smoke", [0], root)
for run in runs:
    run.create()
enqueue(runs)
is_closed = (root / "closed").exists


class Worker:
    def __init__(self, run):
        self.looks, self.asked = 3 * len(started), False
        started.append(self)
        if len(started) == len(runs):
            print("up", flush=True)

    def has_ended(self):
        self.looks -= self.asked and is_closed()
        return self.looks < 0

    def stop(self):
        self.asked = True


started = []
finished = run_all(runs, 2, Worker, lambda at_work: print(at_work, flush=True) if is_closed() else None)
(root / "ended").write_text(f"{finished} {[worker.looks for worker in started]}")
"""


def test_a_launch_waits_for_its_runs_after_its_terminal_is_closed(tmp_path: Path) -> None:
    """What it prints then goes nowhere."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", TERMINAL_CLOSES, str(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert os.read(ours, 100).startswith(b"up")
        process.send_signal(signal.SIGHUP)
        os.close(ours)
        (tmp_path / "closed").touch()
        assert process.wait(60) == 0
    assert (tmp_path / "ended").read_text() == "False [-1, -1]"

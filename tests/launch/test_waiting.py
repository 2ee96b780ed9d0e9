"""The line of a launch on this machine: seen from elsewhere, left to others, never started twice."""

from __future__ import annotations

import io
import os
import platform
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from rich.console import Console

from repro.launch import inline, launching, waiting
from repro.launch.launching import Wishes, launch
from repro.launch.plan import PlannedRun, plan
from repro.launch.reconcile import decide
from repro.launch.waiting import is_in_line, put_in_line, run_all
from repro.paper_tables import load_table
from repro.runs.files import write_json
from repro.runs.status import STALE_AFTER_S, State
from repro.training.interruption import SIGNALS


@pytest.fixture
def runs(tmp_path: Path) -> list[PlannedRun]:
    """A run, another one, and one that begins with the first one's weights."""
    table = load_table("table1")
    rows = table.select(["deit_tiny/dense", "deit_tiny/svite-30", "deit_tiny/omp-30"])
    every = plan(table, rows, "smoke", [0], tmp_path)
    for run in every:
        run.create()
    put_in_line(every)
    return every


class Worker:
    """A run that takes as many looks as it is told, and is in a state then."""

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


def test_a_line_looks_alive_from_another_machine_for_as_long_as_it_lasts(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run takes ten minutes by the clock; the others wait, and are looked at from elsewhere all the time."""
    now = 1_700_000_000.0
    clock = [now]
    monkeypatch.setattr(waiting.time, "time", lambda: clock[0])
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(waiting.time, "sleep", lambda _: clock.__setitem__(0, clock[0] + 10.0))
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


def test_what_another_launch_has_taken_is_left_to_it_with_those_that_wait_for_it(runs: list[PlannedRun]) -> None:
    first, other, begins_with_first = runs
    taken = replace(first.record.status(), host="another-node", pid=1)
    first.record.set_status(taken)
    started = []

    def start(run: PlannedRun) -> Worker:
        started.append(run.row.id)
        return Worker(run, 0)

    assert run_all(runs, 2, start, lambda _: None)
    assert started == [other.row.id]
    assert first.record.status() == taken
    assert begins_with_first.record.status().state == "planned"
    assert begins_with_first.record.status().submissions == 0


@pytest.mark.parametrize("ends", ["requeued", "cancelled", "running", "failed", "done"])
def test_only_the_failure_of_a_run_fails_those_that_begin_with_it(runs: list[PlannedRun], ends: State) -> None:
    """Killed for its memory, cancelled, taken over elsewhere: the same launch goes on with all of them later."""
    first, other, begins_with_first = runs
    started = []

    def start(run: PlannedRun) -> Worker:
        started.append(run.row.id)
        return Worker(run, 2, ends if run is first else "done")

    assert run_all(runs, 2, start, lambda _: None)
    begun = ends in ("failed", "done")
    assert started == [first.row.id, other.row.id, *([begins_with_first.row.id] if begun else [])]
    if not begun:
        assert begins_with_first.record.status().state == "planned"
        assert begins_with_first.record.status().submissions == 0


@pytest.mark.parametrize("ended", [("failed", "the loss is not finite"), ("requeued", "stopped by SIGUSR2")])
def test_a_launch_does_not_promise_to_go_on_with_what_it_leaves(tmp_path: Path, ended: tuple[State, str]) -> None:
    """dense has failed, or was started five times in vain; omp-30 begins with it. The next launch leaves both again."""
    table = load_table("table1")
    every = plan(table, table.select(["deit_tiny/omp-30"]), "smoke", [0], tmp_path)
    dense, omp = every
    dense.create()
    dense.record.set_status(dense.record.status().moved(ended[0], reason=ended[1], submissions=5))
    outcome = launch("table1", every, Wishes(False, True, 5, tmp_path), Console(file=io.StringIO()))
    in_vain = "started 5 times without getting anywhere; see its log, then --retry"
    left, words = ("failed; --retry", ended[1]) if ended[0] == "failed" else (in_vain, in_vain)
    origin = f"begins with deit_tiny/dense, which is not finished: {left}"
    assert list(outcome.failed) == [(dense, words), (omp, origin)]
    assert (outcome.is_interrupted, outcome.unfinished) == (False, [])


class Listener:
    """A run that ends when it is told to, if it listens; `told` is what it has been told."""

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
def test_ctrl_c_while_a_run_is_started_loses_neither_it_nor_those_in_the_line(
    runs: list[PlannedRun], number: signal.Signals
) -> None:
    """An exception would come in the midst of it: the process is there, and nobody knows of it."""
    started: list[Listener] = []

    def start(run: PlannedRun) -> Listener:
        started.append(Listener(run))
        for _ in range(1 if number == signal.SIGINT else 3):  # as a terminal that is closed may do
            os.kill(os.getpid(), number)
        return started[-1]

    _, begun, planned = runs
    assert is_in_line(begun.record.status())
    begun.record.set_status(replace(begun.record.status(), update=3, submissions=2))
    before = signal.getsignal(number)
    assert not run_all(runs, 2, start, lambda _: None)
    assert signal.getsignal(number) == before
    assert [(each.run, each.told) for each in started] == [(runs[0], ["stop"])]
    states = [(each.record.status().state, each.record.status().submissions) for each in (begun, planned)]
    assert states == [("requeued", 1), ("planned", 0)]


def test_a_second_ctrl_c_ends_what_does_not_listen(runs: list[PlannedRun]) -> None:
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


def test_a_third_ctrl_c_waits_for_nothing(runs: list[PlannedRun]) -> None:
    """A run that cannot even be started: the folder of its logs is on a file system that has gone away."""

    def start(_: PlannedRun) -> Listener:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        run_all(runs, 1, start, lambda _: None)
    assert {run.record.status().state for run in runs} == {"planned"}


def test_what_this_process_was_started_to_ignore_stops_nothing(runs: list[PlannedRun]) -> None:
    """nohup: the terminal may be closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_all(runs, 1, lambda run: Worker(run, 0), lambda _: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert {run.state for run in runs} == {"done"}


def test_ctrl_c_before_the_first_run_is_started_takes_all_out_of_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five of these would look like five starts in vain."""
    table = load_table("table1")
    every = plan(table, table.select(["deit_tiny/dense", "deit_tiny/omp-30"]), "smoke", [0], tmp_path)

    def press(*_: object) -> bool:
        assert {run.record.status().state for run in every} == {"submitted"}
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "TableProgress", press)
    with pytest.raises(KeyboardInterrupt):
        launch("table1", every, Wishes(False, True, 5, tmp_path), Console(file=io.StringIO()))
    assert {(run.state, run.record.status().submissions) for run in every} == {("planned", 0)}


def test_what_a_ctrl_c_has_ended_is_asked_before_it_is_looked_at(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between two looks and ends the run at once: that run did not end by itself."""
    told: list[str] = []

    class Ends(Listener):
        def stop(self) -> None:
            told.append("stop")

        def has_ended(self) -> bool:
            told.append("look")
            return True

    monkeypatch.setattr(waiting.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert not run_all(runs, 1, Ends, lambda _: None)
    assert told == ["stop", "look"]


def test_the_launcher_listens_while_the_server_of_its_processes_imports(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the server inherits that signals wait: three Ctrl-C end a launch whose imports hang."""
    blocked: dict[str, set[int]] = {}

    def note(what: str) -> None:
        blocked[what] = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    monkeypatch.setattr(inline.forkserver, "ensure_running", lambda: note("server"))
    monkeypatch.setattr(BaseProcess, "start", lambda _: note("start"))
    inline.Forked(runs[0])
    assert set(SIGNALS) <= blocked["server"]
    assert not set(SIGNALS) & blocked["start"]


TERMINAL_CLOSES = """
import sys
from pathlib import Path
from repro.launch.plan import plan
from repro.launch.waiting import put_in_line, run_all
from repro.paper_tables import load_table

root = Path(sys.argv[1])
table = load_table("table1")
runs = plan(table, table.select(["deit_tiny/dense", "deit_tiny/svite-30"]), "smoke", [0], root)
for run in runs:
    run.create()
put_in_line(runs)
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


def test_a_closed_terminal_is_no_reason_to_leave_runs_alone(tmp_path: Path) -> None:
    """What is printed goes nowhere, and every run is waited for."""
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

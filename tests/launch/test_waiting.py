"""The line of a launch on this machine: seen from elsewhere, left to others, never started twice."""

from __future__ import annotations

import io
import platform
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from repro.launch import waiting
from repro.launch.launching import Wishes, launch
from repro.launch.plan import PlannedRun, plan
from repro.launch.reconcile import decide
from repro.launch.waiting import is_in_line, put_in_line, run_all
from repro.rows import load_table
from repro.runs.files import write_json
from repro.runs.status import STALE_AFTER_S, State


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


def test_ctrl_c_takes_what_has_not_started_out_of_the_line(runs: list[PlannedRun]) -> None:
    def start(_: PlannedRun) -> Worker:
        raise KeyboardInterrupt

    _, begun, planned = runs
    assert is_in_line(begun.record.status())
    begun.record.set_status(replace(begun.record.status(), update=3, submissions=2))
    assert not run_all(runs, 1, start, lambda _: None)
    states = [(each.record.status().state, each.record.status().submissions) for each in (begun, planned)]
    assert states == [("requeued", 1), ("planned", 0)]

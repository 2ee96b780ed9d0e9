"""Progress bars for a launch and its runs; if the output is not a terminal, a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from repro.errors import count_of
from repro.launch.history import accuracies
from repro.launch.plan import PlannedRun

LINE_EVERY_S = 15.0


class TableProgress:
    """Shows how many runs of a launch are done, and the progress of those that are running."""

    def __init__(self, name: str, runs: Sequence[PlannedRun], console: Console) -> None:
        self._name, self._console = name, console
        self._runs = {run.record.path: run for run in runs}
        self._done = {run.record.path for run in runs if run.is_done}
        self._hinted: set[Path] = set()
        self._bars: dict[Path, TaskID] = {}  # of the runs that were running and have not ended
        self._line_at = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        description = f"[bold]{escape(name)}[/bold] runs done"
        self._table = self._progress.add_task(description, total=len(runs), completed=len(self._done))

    def __enter__(self) -> TableProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def watch(self, running: Sequence[Path]) -> None:
        """Update the bars from the records of the running runs, and print the results of runs that have ended."""
        for path in self._bars.keys() - set(running):
            self._end(path)
        for path in running:
            status = self._runs[path].record.status()
            if path not in self._bars:
                self._bars[path] = self._progress.add_task(f"  {escape(self._label(path))}", total=None)
            self._progress.update(self._bars[path], completed=status.update, total=status.updates or None)
            if status.hint is not None and path not in self._hinted:
                self._hinted.add(path)
                self._print(f"  {self._label(path)}: {status.hint}")
        self._progress.update(self._table, completed=len(self._done))
        if running and not self._console.is_terminal and time.monotonic() - self._line_at > LINE_EVERY_S:
            self._line_at = time.monotonic()
            shares = ", ".join(f"{self._label(path)} {self._share(path)}" for path in running)
            self._print(
                f"{self._name}: {len(self._done)} of {count_of(len(self._runs), 'run')} done; running: {shares}"
            )

    def _end(self, path: Path) -> None:
        run = self._runs[path]
        status, result = run.record.status(), run.record.result()
        self._progress.remove_task(self._bars.pop(path))
        if result is None:
            text = f"{status.state}: {status.reason or 'no reason, see its logs'}"
        else:
            self._done.add(path)
            text = f"{accuracies(result)}, {result['wall_s']:.0f} s"
        self._print(f"  {self._label(path)}: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _label(self, path: Path) -> str:
        run = self._runs[path]
        return run.label or (run.row.id if run.config.seed == 0 else f"{run.row.id} seed {run.config.seed}")

    def _share(self, path: Path) -> str:
        status = self._runs[path].record.status()
        if not status.updates:
            return "starting"
        share = "" if status.loader_share_pct is None else f" (loader {status.loader_share_pct:.0f} %)"
        return f"{100 * status.update // status.updates} %{share}"

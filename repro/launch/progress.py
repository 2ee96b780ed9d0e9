"""A bar for the table and one for each run at work; a line now and then where the output is no terminal."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from repro.launch.plan import PlannedRun

LINE_EVERY_S = 15.0


class TableProgress:
    """Shows how far the runs of a table are. `watch` is given the folders of the runs at work."""

    def __init__(self, name: str, every: list[PlannedRun], starting: list[PlannedRun], console: Console) -> None:
        self.console = console
        self.name = name
        self.by_path = {run.record.path: run for run in starting}
        self.total = len(every)
        self.done_before = sum(run.is_done for run in every)
        self.ended: dict[Path, str] = {}
        self._seen: set[Path] = set()
        self._hinted: set[Path] = set()
        self._bars: dict[Path, TaskID] = {}
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
        self._table = self._progress.add_task(f"[bold]{name}[/bold] runs", total=self.total, completed=self.done_before)

    def __enter__(self) -> TableProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def watch(self, at_work: list[Path]) -> None:
        """Move the bars to where the records say the runs are."""
        for path in self._seen - set(at_work) - set(self.ended):
            self._end(path)
        self._seen |= set(at_work)
        for path in at_work:
            status = self.by_path[path].record.status()
            if path not in self._bars:
                self._bars[path] = self._progress.add_task(f"  {self._label(path)}", total=None)
            self._progress.update(self._bars[path], completed=status.update, total=status.updates or None)
            if status.hint is not None and path not in self._hinted:
                self._hinted.add(path)
                self.console.print(f"  {self._label(path)}: {status.hint}", highlight=False, markup=False)
        self._progress.update(self._table, completed=self.done_before + len(self.ended))
        if not self.console.is_terminal and time.monotonic() - self._line_at > LINE_EVERY_S:
            self._line_at = time.monotonic()
            at = ", ".join(f"{self._label(path)} {self._share(path)}" for path in at_work)
            self.console.print(
                f"{self.name}: {self.done_before + len(self.ended)} of {self.total} runs; at {at}", markup=False
            )

    def _end(self, path: Path) -> None:
        run = self.by_path[path]
        status = run.record.status()
        self.ended[path] = status.state
        if path in self._bars:
            self._progress.remove_task(self._bars.pop(path))
        result = run.record.result()
        if result is not None:
            text = f"top-1 {result['top1_last_pct']:.2f} % ({result['dataset']}), {result['wall_s']:.0f} s"
        else:
            text = f"{status.state}: {status.reason or 'ended without a word, see its attempts/'}"
        self.console.print(f"  {self._label(path)}: {text}", highlight=False, markup=False)

    def _label(self, path: Path) -> str:
        run = self.by_path[path]
        return run.row.id if run.config.seed == 0 else f"{run.row.id} seed {run.config.seed}"

    def _share(self, path: Path) -> str:
        status = self.by_path[path].record.status()
        if not status.updates:
            return "starting"
        share = "" if status.loader_share_pct is None else f" (loader {status.loader_share_pct:.0f} %)"
        return f"{100 * status.update // status.updates} %{share}"

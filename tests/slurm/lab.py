"""What a person does on a cluster, for tests: launch rows, look at their records."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from one_node import OneNode
from rich.console import Console

from repro.launch.launch import LaunchOptions, launch
from repro.launch.manifest import read_manifest
from repro.launch.plan import plan
from repro.runs.record import Record
from repro.tables.loader import load_table

ROOT = Path(__file__).resolve().parents[2]
ROW, ORIGIN = "deit_tiny/s2vite-30", "deit_tiny/dense"
BEGUN = "deit_tiny/omp-30"  # with the weights of ORIGIN
LONG = "recipe.epochs=100"  # 400 updates: still at it when Slurm, which looks every second, has taken notice
WALL_CLOCK = ("step_time_ms", "images_per_s", "loader_share_pct", "wall_s")
SMALL = ["launcher=slurm", "launcher.gpus_per_node=0", "launcher.cpus_per_task=1", "tracker=none"]


class Lab:
    """A folder of runs on a cluster."""

    def __init__(self, node: OneNode, folder: Path) -> None:
        self.node, self.folder = node, folder
        self.environment = {**node.environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process: subprocess.Popen[str] | None = None

    def repro(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """A command of ours; `code` is what it should exit with, None: any."""
        answer = subprocess.run(
            [sys.executable, "-m", "repro", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert code is None or answer.returncode == code, answer.stdout + answer.stderr
        return answer

    @contextmanager
    def begun(self, *words: str) -> Iterator[None]:
        """Run a command during the block, until `finish`."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "repro", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            if self.process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.communicate()

    def finish(self) -> None:
        """Wait for what has `begun`, if anything has."""
        if self.process is not None and self.process.returncode is None:
            output, _ = self.process.communicate(timeout=300)
            assert self.process.returncode == 0, output

    def launch(self, rows: str, *overrides: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`repro launch table1 --yes` at scale smoke."""
        return self.repro("launch", "table1", rows, "--scale", "smoke", "--yes", *SMALL, *overrides, code=code)

    def launch_together(
        self, rows: Mapping[str, Sequence[str]], monkeypatch: pytest.MonkeyPatch, *overrides: str
    ) -> None:
        """Rows of different lengths in one launch, which no command line has: `rows` has the overrides of each."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        table, root = load_table("table1"), self.folder / "runs"
        runs = [
            run
            for row, own in rows.items()
            for run in plan(table, table.select([row]), "smoke", [0], root, [*SMALL, *overrides, *own])
        ]
        launch("table1", runs, LaunchOptions(False, True, 5, root), Console(file=io.StringIO()))

    def records(self) -> dict[str, Record]:
        """The records there are, by row."""
        found = {}
        for file in sorted(self.folder.glob("runs/table1/**/config.yaml")):
            found["/".join(file.parts[-5:-3])] = Record(file.parent)
        return found

    def record(self, row: str) -> Record:
        """The only record of a row."""
        return self.records()[row]

    def state(self, row: str) -> str:
        """The state of its status."""
        return self.record(row).status().state

    def job_id(self, row: str) -> str:
        """Its job, by Slurm's queue and the manifest of its array."""
        record = self.record(row)
        root, status = self.folder / "runs", record.status()
        manifest = read_manifest(root, status.array or "")
        assert manifest is not None
        index = manifest.index_of(root, record)
        assert index is not None
        return manifest.task_id(index) or ""

    def wait_state(self, row: str, *states: str, timeout_s: float = 240) -> None:
        """Until a run is in one of these states, letting requeued jobs start at once."""

        def there() -> bool:
            self.node.release()
            return self.state(row) in states

        self.node.wait(there, timeout_s)

    def occupy(self) -> None:
        """Fill the node, so that what is submitted waits. Ends with `free`."""
        self.node.run("sbatch", "-p", "low", "-n4", "-J", "occupied", "-o", "/dev/null", "--wrap", "sleep 300")
        self.node.wait(lambda: "occupied" in self.node.run("squeue", "-h", "-t", "R", "-o", "%j").stdout)

    def free(self) -> None:
        """Let what waits start."""
        self.node.run("scancel", "--name=occupied")

    def wait_update(self, row: str, update: int) -> None:
        """Until a run has made so many updates."""
        self.node.wait(lambda: self.state(row) == "running" and self.record(row).status().update >= update, 240)

    def wait_empty(self, timeout_s: float = 240) -> None:
        """Until the queue is empty."""

        def empty() -> bool:
            self.node.release()
            return not self.node.run("squeue", "-h", check=False).stdout.strip()

        self.node.wait(empty, timeout_s)


def outcome(record: Record) -> tuple[Any, Any]:
    """What must not depend on what happened to a run on its way."""
    result = {key: value for key, value in (record.result() or {}).items() if key not in WALL_CLOCK}
    metrics = [{key: value for key, value in line.items() if key not in WALL_CLOCK} for line in record.metrics()]
    return json.loads(json.dumps(result)), metrics

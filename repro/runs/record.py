"""A run record: the folder that holds all there is to know about one run. Tables are built from these alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from repro.config import Config
from repro.errors import UserError
from repro.runs.files import read_json, write_json, write_text
from repro.runs.status import Status


@dataclass(frozen=True)
class Record:
    """The record at `path`: `<root>/<table>/<row>/<scale>/seed<k>-<sig8>`."""

    path: Path

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line, append-only."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_dir(self) -> Path:
        """The last two checkpoints and the best one."""
        return self.path / "checkpoint"

    def attempt_dir(self, attempt: int) -> Path:
        """Output of one process of the run."""
        return self.path / "attempts" / str(attempt)

    def create(self, config: Config, table: str, row: str, starts_from: Path | None = None) -> None:
        """Make the folder and write config.yaml and a planned status, unless they are there already.

        `starts_from` is the record whose trained weights this run begins with.
        """
        if (self.path / "config.yaml").exists():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot make the run's folder ({error.strerror}); set run.root=") from None
        about: dict[str, Any] = {"table": table, "row": row, "signature": config.signature}
        if starts_from is not None:
            # Relative, so that the folder of all runs can be moved or mounted elsewhere.
            about["starts_from"] = os.path.relpath(starts_from, self.path)
        write_json(self.path / "status.json", Status().as_json())
        write_text(
            self.path / "config.yaml",
            yaml.safe_dump({**about, **config.model_dump(mode="json")}, sort_keys=False),
        )

    def about(self) -> dict[str, Any]:
        """What config.yaml holds: table, row, signature and the resolved config."""
        try:
            return dict(yaml.load((self.path / "config.yaml").read_text(encoding="utf-8"), Loader=_Loader))
        except FileNotFoundError:
            raise UserError(f"{self.path}: not a run record (no config.yaml)") from None

    def config(self) -> Config:
        """The run's config, as it was composed."""
        about = self.about()
        return Config.model_validate({key: about[key] for key in Config.model_fields})

    def starts_from(self) -> Record | None:
        """The record whose trained weights this run begins with; None for a run from scratch."""
        place = self.about().get("starts_from")
        return None if place is None else Record((self.path / place).resolve())

    def status(self) -> Status:
        """The run's state; planned where nothing has been written yet."""
        return Status(**(read_json(self.path / "status.json") or {}))

    def set_status(self, status: Status) -> None:
        """Write status.json, atomically."""
        write_json(self.path / "status.json", status.as_json())

    def result(self) -> dict[str, Any] | None:
        """What came out, with units in the names; None until the run is done."""
        result = read_json(self.path / "result.json")
        return None if result is None else dict(result)

    def provenance(self) -> dict[str, Any]:
        """Commit, hardware and versions behind the latest attempt; empty before the first."""
        return dict(read_json(self.path / "provenance.json") or {})

    def anatomy(self) -> dict[str, Any] | None:
        """What `repro extract` took from the finished model; None where it has not been there."""
        found = read_json(self.path / "anatomy.json")
        return None if found is None else dict(found)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The metric lines in the order of training, each (kind, update) once: a resumed run repeats some, alike."""
        latest: dict[tuple[str, int], dict[str, Any]] = {}
        if self.metrics_file.exists():
            for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
                entry = _parse_line(line)
                if entry is not None:
                    latest[entry["kind"], entry["update"]] = entry
        yield from sorted(latest.values(), key=lambda entry: (entry["update"], entry["kind"]))


def record_for(root: Path, config: Config, table: str, row: str) -> Record:
    """The record of a run: its place follows from what it is."""
    return Record(root / table / row / config.scale.name / f"seed{config.seed}-{config.signature[:8]}")


def all_records(root: Path) -> Iterator[Record]:
    """Every record below `root`, in the order of their paths."""
    for file in sorted(root.glob("**/config.yaml")):
        yield Record(file.parent)


def _parse_line(line: str) -> dict[str, Any] | None:
    """A metric line; None for the torn last line that a killed process leaves."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

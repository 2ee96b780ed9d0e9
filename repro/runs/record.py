"""A run record: the folder that holds all there is to know about one run. Tables are built from these alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from repro.config import Config
from repro.errors import UserError
from repro.runs.files import read_json, write_json, write_text
from repro.runs.status import Status

ANATOMY_SCHEMA = 2  # of `anatomy.json`: 1 had the patches that are kept after the last stage alone


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

    @property
    def weights_file(self) -> Path:
        """The finished weights, zeros left out; written only where the run is asked to (`tracker.upload_weights`)."""
        return self.path / "weights.safetensors"

    def attempt_dir(self, attempt: int) -> Path:
        """Output of one process of the run."""
        return self.path / "attempts" / str(attempt)

    def latest_attempt(self) -> int:
        """The number of the newest attempt; 0 before the first."""
        folder = self.path / "attempts"
        return max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0)

    def claim_attempt(self) -> int:
        """Begin a new attempt: the next number, and a folder that no other attempt has.

        Making the folder is the claim: of two processes one succeeds, on a shared file system too. An older attempt
        that is still alive somewhere finds the newer folder and stops.
        """
        number = self.latest_attempt() + 1
        while True:
            try:
                self.attempt_dir(number).mkdir(parents=True)
            except FileExistsError:
                number += 1
            else:
                return number

    @property
    def is_locked(self) -> bool:
        """Whether a process that can be seen from here is at this run. (A dead process holds no lock.)"""
        lock = FileLock(self.path / "lock")
        if not (self.path / "lock").exists():  # no attempt yet; to look must leave no file behind
            return False
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True
        except PermissionError:  # another person's: a process of theirs is known by its heartbeat only
            return not self.status().is_silent(time.time())

    def create(self, config: Config, table: str, row: str, starts_from: Path | None = None) -> None:
        """Make the folder and write config.yaml and a planned status.

        `starts_from` is the record whose trained weights this run begins with. Where the record is there already and
        not finished, what cannot change its result (paths, workers, device, launcher, tracker) is taken from `config`:
        a folder of images that was wrong, or has moved, is mended by launching again.
        """
        if (self.path / "config.yaml").exists():
            about = self.about()
            now = {**about, **config.model_dump(mode="json")}
            if about["signature"] == config.signature and now != about and self.result() is None:
                write_text(self.path / "config.yaml", yaml.safe_dump(now, sort_keys=False))
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot make the run's folder ({error.strerror}); set run.root=") from None
        about = {"table": table, "row": row, "signature": config.signature}
        if starts_from is not None:
            # Relative, so that the folder of all runs can be moved or mounted elsewhere.
            about["starts_from"] = os.path.relpath(starts_from, self.path)
        write_json(self.path / "status.json", Status().as_json())
        write_text(
            self.path / "config.yaml",
            yaml.dump({**about, **config.model_dump(mode="json")}, Dumper=_Dumper, sort_keys=False),
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
        """What `repro extract` took from the finished model; None where it has not been there, or saw less than now."""
        found = read_json(self.path / "anatomy.json")
        return None if found is None or found.get("schema") != ANATOMY_SCHEMA else dict(found)

    def interpretation(self) -> dict[str, Any] | None:
        """What `repro interpret` measured of the finished model; None where it has not been there."""
        found = read_json(self.path / "interpretation.json")
        return None if found is None else dict(found)

    def metrics(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """The metric lines in the order of training, each (kind, update) once: a resumed run repeats some, alike.

        With `kind`, those of one kind; the others are not even parsed.
        """
        latest: dict[tuple[str, int], dict[str, Any]] = {}
        if self.metrics_file.exists():
            data = self.metrics_file.read_bytes()
            every = data.splitlines() if kind is None else _lines_with(json.dumps({"kind": kind})[1:-1].encode(), data)
            for line in every:
                entry = _parse_line(line)
                if entry is not None:
                    latest[entry["kind"], entry["update"]] = entry
        yield from sorted(latest.values(), key=lambda entry: (entry["update"], entry["kind"]))


def record_for(root: Path, config: Config, table: str, row: str, signature: str | None = None) -> Record:
    """The record of a run: its place follows from what it is. `signature` is the config's, where known."""
    start = (signature or config.signature)[:8]
    return Record(root / table / row / config.scale.name / f"seed{config.seed}-{start}")


def all_records(root: Path) -> Iterator[Record]:
    """Every record below `root`, in the order of their paths."""
    for file in sorted(root.glob("**/config.yaml")):
        # A hidden folder is a record that is being made; W&B's client has files of this name in folders of its own.
        is_hidden = file.parent.name.startswith(".")
        if not is_hidden and (file.parent / "status.json").exists():
            yield Record(file.parent)


def _lines_with(sought: bytes, data: bytes) -> Iterator[bytes]:
    """The lines that hold these bytes; the others are not even cut out, for a report looks into thousands of files."""
    at = data.find(sought)
    while at >= 0:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        yield data[data.rfind(b"\n", 0, at) + 1 : end]
        at = data.find(sought, end)


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """A metric line; None for the torn last line that a killed process leaves."""
    try:
        entry = json.loads(line)
    except ValueError:  # not JSON, or cut inside a character
        return None
    return entry if isinstance(entry, dict) else None


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

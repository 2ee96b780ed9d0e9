"""A run record: the folder that holds all there is to know about one run. Tables are built from these alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from repro.config import Config
from repro.errors import UserError
from repro.runs.checking import checked, what_is_wrong
from repro.runs.contents import ANATOMY, EARLIER_ANATOMIES, INTERPRETATION, PROVENANCE, RESULT, RESULT_SCHEMA, STATUS
from repro.runs.files import read_object, shown, write_json, write_text
from repro.runs.metrics_file import read_metrics
from repro.runs.status import Status

_MOVE_AWAY = "move this folder away"
_WITHOUT_ORIGIN = "remove it (nobody then knows where the run comes from), or the folder to run it again"
_EXTRACT_AGAIN = "remove it, and repro extract again"
_INTERPRET_AGAIN = "remove it, and repro interpret again"


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
        """What config.yaml holds: table, row, signature and the resolved config. Raises `UserError` for damage."""
        file = self.path / "config.yaml"
        try:
            about = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
        except FileNotFoundError:
            raise UserError(f"{self.path}: not a run record (no config.yaml)") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: damaged ({' '.join(str(error).split())}); {_MOVE_AWAY}") from None
        if not isinstance(about, dict):
            raise UserError(f"{file}: damaged ({shown(about)} where a config should be); {_MOVE_AWAY}")
        if lost := [name for name in ("table", "row", "signature") if not isinstance(about.get(name), str)]:
            raise UserError(f"{file}: damaged (no {', '.join(lost)}); {_MOVE_AWAY}")
        return about

    def config(self) -> Config:
        """The run's config, as it was composed. Raises `UserError` for one of another version of the code."""
        about = self.about()
        try:
            return Config.model_validate({key: about[key] for key in Config.model_fields if key in about})
        except ValidationError as error:
            raise UserError(
                f"{self.path}/config.yaml: not a config of this version of the code ({what_is_wrong(error)}); use the "
                f"version that made it, or {_MOVE_AWAY}"
            ) from None

    def starts_from(self) -> Record | None:
        """The record whose trained weights this run begins with; None for a run from scratch."""
        place = self.about().get("starts_from")
        return None if place is None else Record((self.path / place).resolve())

    def status(self) -> Status:
        """The run's state; planned where nothing has been written yet. Raises `UserError` for a damaged one.

        Keys that only a newer version knows are passed over, and go when this one writes the file.
        """
        file = self.path / "status.json"
        return checked(file, STATUS, read_object(file) or {})

    def set_status(self, status: Status) -> None:
        """Write status.json, atomically."""
        write_json(self.path / "status.json", status.as_json())

    def result(self) -> dict[str, Any] | None:
        """What came out, with units in the names; None until the run is done. Raises `UserError` for a damaged one.

        One of another schema is given as it is: only who reads its numbers can say that it cannot.
        """
        found = read_object(self.path / "result.json")
        if found is not None and found.get("schema") == RESULT_SCHEMA:
            checked(self.path / "result.json", RESULT, found)
        return found

    def provenance(self) -> dict[str, Any]:
        """Commit, hardware and versions behind the latest attempt; empty before the first."""
        return self._found("provenance.json", PROVENANCE, _WITHOUT_ORIGIN) or {}

    def anatomy(self) -> dict[str, Any] | None:
        """What `repro extract` took from the finished model; None where it has not been there, or saw less than now."""
        found = read_object(self.path / "anatomy.json", _EXTRACT_AGAIN)
        if found is None or found.get("schema") in EARLIER_ANATOMIES:
            return None
        checked(self.path / "anatomy.json", ANATOMY, found, _EXTRACT_AGAIN)
        return found

    def interpretation(self) -> dict[str, Any] | None:
        """What `repro interpret` measured of the finished model; None where it has not been there."""
        return self._found("interpretation.json", INTERPRETATION, _INTERPRET_AGAIN)

    def _found(self, name: str, kind: TypeAdapter[Any], next_step: str) -> dict[str, Any] | None:
        """A file as it is, once it is known to be right; None where there is none."""
        found = read_object(self.path / name, next_step)
        if found is not None:
            checked(self.path / name, kind, found, next_step)
        return found

    def metrics(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """The metric lines in the order of training, each (kind, update) once: a resumed run repeats some, alike.

        With `kind`, those of one kind; the others are not even parsed.
        """
        return read_metrics(self.metrics_file, kind)


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


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

"""A run record: the folder of one run. Reports are built from records alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from repro.config import Config
from repro.errors import UserError
from repro.files import read_object, shown, write_json, write_text
from repro.runs.metrics_file import read_metrics
from repro.runs.schemas import RESULT_SCHEMA, Anatomy, Interpretation, Provenance, Result
from repro.runs.status import Status
from repro.runs.validation import describe_errors, read_validated, validated

_MOVE_AWAY = "move this folder away"
_WITHOUT_PROVENANCE = "remove it (the run then has no provenance), or the folder to run it again"
_EXTRACT_AGAIN = "remove it, and run repro extract again"
_INTERPRET_AGAIN = "remove it, and run repro interpret again"


@dataclass(frozen=True)
class Record:
    """The record at `path`: `<root>/<table>/<row>/<scale>/seed<k>-<sig8>`."""

    path: Path

    @property
    def metrics_file(self) -> Path:
        """The metrics of the run: one JSON object per line, only ever appended to."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_dir(self) -> Path:
        """The folder of the last two checkpoints and the best one."""
        return self.path / "checkpoint"

    @property
    def weights_file(self) -> Path:
        """The nonzero final weights. Only adopted weights and runs with `tracker.upload_weights` have this file."""
        return self.path / "weights.safetensors"

    @property
    def lock(self) -> FileLock:
        """A new handle of the lock that an attempt holds while it executes the run."""
        return FileLock(self.path / "lock")

    @property
    def is_adopted(self) -> bool:
        """Whether this is a record of weights that others have trained: see `repro.runs.adopted`."""
        return (self.path / "adopted.json").is_file()

    def attempt_dir(self, attempt: int) -> Path:
        """Return the folder with the output of one attempt."""
        return self.path / "attempts" / str(attempt)

    def attempts(self) -> list[int]:
        """Return the numbers of all attempts, ascending."""
        return sorted(int(path.name) for path in (self.path / "attempts").glob("*") if path.name.isdecimal())

    def latest_attempt(self) -> int:
        """Return the number of the newest attempt; 0 before the first."""
        return max(self.attempts(), default=0)

    def claim_attempt(self) -> int:
        """Start a new attempt: create its folder and return its number.

        Creating the folder claims the run: only one of several processes succeeds, on a shared file system too. An
        older attempt that is still alive notices the newer folder and stops.
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
        """Whether another process executes this run. The lock of a process that dies is released.

        Asking takes the lock for less than a millisecond. So that two processes that ask at once do not mistake each
        other for an attempt, it is tried again after 10 ms.
        """
        lock = self.lock
        if not Path(lock.lock_file).exists():  # no attempt yet; checking must not create the file
            return False
        try:
            with lock.acquire(timeout=0.02, poll_interval=0.01):
                return False
        except Timeout:
            return True
        except PermissionError:  # the lock of another user, whose process is visible only by its heartbeat
            return not self.status().is_silent(time.time())

    def create(self, config: Config, table: str, row: str, starts_from: Path | None = None) -> None:
        """Create the folder, with config.yaml and a planned status.

        `starts_from` is the record whose trained weights this run starts from. If the record exists and is not
        finished, the values that cannot change its result (paths, workers, device, launcher, tracker) are updated from
        `config`, so that launching again corrects a data folder that was wrong or has moved. Raises `UserError` if the
        folder cannot be created.
        """
        if (self.path / "config.yaml").exists():
            about = self.about()
            now = {**about, **config.model_dump(mode="json")}
            is_same_run = about["signature"] in (config.signature, config.former_signature)
            if is_same_run and now != about and self.result() is None:
                write_text(self.path / "config.yaml", yaml.safe_dump(now, sort_keys=False))
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot create the run's folder ({error.strerror}); set run.root=") from None
        self.set_status(Status())
        self.write_config(config, table, row, starts_from)

    def write_config(self, config: Config, table: str, row: str, starts_from: Path | None = None) -> None:
        """Write config.yaml, atomically."""
        about = {"table": table, "row": row, "signature": config.signature}
        if starts_from is not None:
            # A relative path, so that the runs folder can be moved or mounted elsewhere.
            about["starts_from"] = os.path.relpath(starts_from, self.path)
        write_text(
            self.path / "config.yaml",
            yaml.dump({**about, **config.model_dump(mode="json")}, Dumper=_Dumper, sort_keys=False),
        )

    def about(self) -> dict[str, Any]:
        """Return the contents of config.yaml: table, row, signature and the resolved config.

        Raises `UserError` if it is missing or damaged.
        """
        file = self.path / "config.yaml"
        try:
            about = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
        except FileNotFoundError:
            raise UserError(f"{self.path}: not a run record (no config.yaml)") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2020-13-45 is no date
            raise UserError(f"{file}: damaged ({' '.join(str(error).split())}); {_MOVE_AWAY}") from None
        if not isinstance(about, dict):
            raise UserError(f"{file}: damaged ({shown(about)} where a config should be); {_MOVE_AWAY}")
        if missing := [name for name in ("table", "row", "signature") if not isinstance(about.get(name), str)]:
            raise UserError(f"{file}: damaged (no {', '.join(missing)}); {_MOVE_AWAY}")
        return about

    def config(self) -> Config:
        """Return the run's config. Raises `UserError` if another version of the code wrote it and it is not valid."""
        about = self.about()
        try:
            return Config.model_validate({key: about[key] for key in Config.model_fields if key in about})
        except ValidationError as error:
            raise UserError(
                f"{self.path}/config.yaml: not a config of this version ({describe_errors(error)}); use the "
                f"version of the code that made it, or {_MOVE_AWAY}"
            ) from None

    def starts_from(self) -> Record | None:
        """Return the record whose trained weights this run starts from; None for a run from scratch."""
        path = self.about().get("starts_from")
        return None if path is None else Record((self.path / path).resolve())

    def status(self) -> Status:
        """Return the run's status; that of a planned run if there is no status.json.

        Keys of a newer version are ignored, and lost when this version writes the file. Raises `UserError` if the file
        is damaged.
        """
        return read_validated(self.path / "status.json", Status) or Status()

    def set_status(self, status: Status) -> None:
        """Write status.json, atomically."""
        write_json(self.path / "status.json", asdict(status))

    def result(self) -> dict[str, Any] | None:
        """Return the result, with units in the names; None until the run is done.

        A result of another schema is returned without validation, and the caller decides whether it can be used. Raises
        `UserError` if the file is damaged.
        """
        result = read_object(self.path / "result.json")
        if result is not None and result.get("schema") == RESULT_SCHEMA:
            validated(self.path / "result.json", Result, result)
        return result

    def provenance(self) -> dict[str, Any]:
        """Return commit, hardware and versions of the latest attempt; empty before the first."""
        return self._read("provenance.json", Provenance, _WITHOUT_PROVENANCE) or {}

    def trained_on(self) -> str | None:
        """Return the fingerprint of the data of the latest attempt; None if it is not recorded."""
        fingerprint: str | None = self.provenance().get("data_fingerprint")
        return fingerprint

    def anatomy(self) -> dict[str, Any] | None:
        """Return what `repro extract` read from the finished model; None if it has not run."""
        return self._read("anatomy.json", Anatomy, _EXTRACT_AGAIN)

    def interpretation(self) -> dict[str, Any] | None:
        """Return what `repro interpret` measured on the finished model; None if it has not run."""
        return self._read("interpretation.json", Interpretation, _INTERPRET_AGAIN)

    def _read(self, name: str, schema: type[BaseModel], next_step: str) -> dict[str, Any] | None:
        """Return the validated contents of a file; None if there is none."""
        contents = read_object(self.path / name, next_step)
        if contents is not None:
            validated(self.path / name, schema, contents, next_step)
        return contents

    def metrics(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the entries of metrics.jsonl in the order of training; only those of one `kind` if it is given."""
        return read_metrics(self.metrics_file, kind)


def record_for(root: Path, config: Config, table: str, row: str, signature: str | None = None) -> Record:
    """Return the record of a run, under the config's former signature if only that record exists.

    `signature` is that of the config, if the caller already knows it.
    """
    folder = root / table / row / config.scale.name
    record = Record(folder / f"seed{config.seed}-{(signature or config.signature)[:8]}")
    if not record.path.is_dir() and (former := config.former_signature):
        earlier = Record(folder / f"seed{config.seed}-{former[:8]}")
        return earlier if earlier.path.is_dir() else record
    return record


def all_records(root: Path) -> Iterator[Record]:
    """Yield every record below `root`, in the order of their paths."""
    for file in sorted(root.glob("**/config.yaml")):
        # A hidden folder is a record that is being pulled; W&B's client writes files of this name to its own folders.
        is_hidden = file.parent.name.startswith(".")
        if not is_hidden and (file.parent / "status.json").exists():
            yield Record(file.parent)


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

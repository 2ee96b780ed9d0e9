"""mirror.json: the state of a record's W&B mirror, and the command that updates it."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from repro.errors import UserError, count_of
from repro.files import write_json
from repro.runs.validation import read_validated

NOT_LOGGED_IN = "not logged in to W&B"
State = Literal["live", "current", "behind"]
# Secrets that messages of the client or of a proxy may quote: a password in a URL, a key, a token.
_SECRETS = re.compile(r"(?<=//)[^/@\s]+@|\b[A-Za-z0-9_]{36,}\b")


@dataclass(frozen=True)
class Mirror:
    """The W&B mirror of one record.

    Attributes:
        state: `live` while an attempt writes to the server, `current` if the server has everything, else `behind`.
        mode: where the latest attempt wrote to: `online`, `offline` (files in the record) or `none`.
        through_update: the last optimizer update that was passed to W&B.
        reason: why the mirror is behind, in one line without secrets.
        push: the command that brings the server up to date; empty if it is up to date.
        entity: user or team of the project; None for the user's default entity.
        project: project that the run is or will be in, so that a push from another environment does not create a
            second run elsewhere.
    """

    state: State
    mode: Literal["online", "offline", "none"]
    run_id: str
    url: str | None = None
    through_update: int = 0
    reason: str = ""
    push: str = ""
    entity: str | None = None
    project: str | None = None


def mirror_file(record: Path) -> Path:
    """Return the path of mirror.json."""
    return record / "mirror.json"


def read_mirror(record: Path) -> Mirror | None:
    """Return the mirror of a record; None if it was never mirrored. Raises `UserError` for a damaged file."""
    return read_validated(mirror_file(record), Mirror, f"remove it, and {push_command(record)}")


def write_mirror(record: Path, mirror: Mirror) -> None:
    """Write mirror.json atomically."""
    write_json(mirror_file(record), asdict(mirror))


def mirror_of(record: Path, is_running: bool) -> Mirror | None:
    """Return the mirror of a record. A `live` mirror of a run that is not running is behind: the attempt was killed."""
    mirror = read_mirror(record)
    if mirror is None or is_running or mirror.state != "live":
        return mirror
    return replace(mirror, state="behind", reason="its last attempt was killed", push=push_command(record))


def behind_summary(mirrors: Iterable[tuple[Path, Mirror | None]], *, is_logged_in: bool) -> str:
    """Return one line with the number of mirrors that are behind, the most common reason, and the command to push them.

    Empty if none is behind. Runs that are behind because the user was not logged in count only if the user is now.
    """
    behind = [
        (record, mirror)
        for record, mirror in mirrors
        if mirror is not None and mirror.state == "behind" and (is_logged_in or mirror.reason != NOT_LOGGED_IN)
    ]
    if not behind:
        return ""
    (reason, count), *others = Counter(mirror.reason for _, mirror in behind).most_common()
    cause = f"{count} of them: {reason}" if others else reason
    folder = behind[0][0] if len(behind) == 1 else Path(os.path.commonpath([record for record, _ in behind]))
    return f"W&B is behind for {count_of(len(behind), 'run')} ({cause}); send them: {push_command(folder)}"


def push_command(record: Path) -> str:
    """Return the command that pushes one record."""
    return f"repro wandb push {shlex.quote(str(record))}"


def one_line(error: BaseException) -> str:
    """Return type (not of a `UserError`) and first line of an error. Secrets are masked."""
    lines = str(error).strip().splitlines()[:1]
    kind = [] if isinstance(error, UserError) else [type(error).__name__]
    return _SECRETS.sub("***", ": ".join([*kind, *lines]))

"""mirror.json: how far the W&B mirror of a record is, why it is behind, and what to type to bring it up to date."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from repro.errors import UserError
from repro.runs.checking import checked
from repro.runs.files import read_object, write_json

State = Literal["live", "current", "behind"]
# A key, a token in an address: what an error of a client or a proxy might quote.
_SECRETS = re.compile(r"(?<=//)[^/@\s]+@|\b[A-Za-z0-9_]{36,}\b")


@dataclass(frozen=True)
class Mirror:
    """The mirror of one record.

    Attributes:
        state: `live` while an attempt is writing to the server, `current` when the server has all, else `behind`.
        mode: where the latest attempt wrote: `online`, `offline` (files in the record) or `none`.
        through_update: the last optimizer update that was handed to W&B.
        reason: why it is behind; one line, without secrets.
        push: the command that brings the server up to date; empty when it is.
        entity: whose project it is, None for the user's own.
        project: where the run is, or is to be: a push in another environment must not make a second one elsewhere.
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
    """Where it is."""
    return record / "mirror.json"


def read_mirror(record: Path) -> Mirror | None:
    """What the record says of its mirror; None before anything has mirrored it."""
    file, next_step = mirror_file(record), f"remove it, and {push_command(record)}"
    values = read_object(file, next_step)
    return None if values is None else checked(file, _MIRROR, values, next_step)


def mirror_of(record: Path, is_at_work: bool) -> Mirror | None:
    """As `read_mirror`; a mirror that calls itself live is behind where the run is not at work.

    An attempt that was killed could not say so itself.
    """
    mirror = read_mirror(record)
    if mirror is None or is_at_work or mirror.state != "live":
        return mirror
    return replace(mirror, state="behind", reason="its last attempt ended without a word", push=push_command(record))


def what_is_behind(mirrors: Iterable[tuple[Path, Mirror | None]]) -> str:
    """One line: how many mirrors of these records are behind, why (the most frequent reason), and what to type.

    Empty where none is.
    """
    behind = [(record, mirror) for record, mirror in mirrors if mirror is not None and mirror.state == "behind"]
    if not behind:
        return ""
    (reason, number), *others = Counter(mirror.reason for _, mirror in behind).most_common()
    why = f"{reason}" if not others else f"{number} of them: {reason}"
    place = behind[0][0] if len(behind) == 1 else Path(os.path.commonpath([record for record, _ in behind]))
    return f"W&B is behind for {len(behind)} runs ({why}); send them: {push_command(place)}"


def write_mirror(record: Path, mirror: Mirror) -> None:
    """Write it, atomically."""
    write_json(mirror_file(record), asdict(mirror))


def push_command(record: Path) -> str:
    """What to type to push one record."""
    return f"repro wandb push {shlex.quote(str(record))}"


def one_line(error: BaseException) -> str:
    """An error as the first line of its message, without anything that looks like a key or a password.

    What kind it is stands before it, but for our own: those are written to be read.
    """
    kind = "" if isinstance(error, UserError) else type(error).__name__
    lines = str(error).strip().splitlines()[:1]
    return _SECRETS.sub("***", ": ".join([kind, *lines] if kind else lines))


_MIRROR = TypeAdapter(Mirror)

"""Where the mirror of a run is on W&B: in which project, and whose."""

from __future__ import annotations

import os
from dataclasses import dataclass

from repro.composition import compose
from repro.errors import UserError
from repro.tracking.mirror_file import Mirror


@dataclass(frozen=True)
class Place:
    """A project of W&B. `entity` is the user or team that it belongs to, None for the user's own."""

    project: str
    entity: str | None = None


def place_of(own: str | None, given: str | None = None, mirror: Mirror | None = None) -> Place:
    """Where a run goes: the project `given`, else where it is already, else WANDB_PROJECT, else what its config says.

    Args:
        own: `tracker.project` of the run's config; None for a record whose config names none: then the default's.
        given: `[entity/]project`, as a command was told.
        mirror: what the record says of its mirror. A run that is on the server stays in its project; one that was
            only written offline has a project in mind, which WANDB_PROJECT goes before.

    Raises `UserError` for what is no `[entity/]project`.
    """
    if not given and mirror is not None and mirror.project:
        asked = None if mirror.url else os.environ.get("WANDB_PROJECT")
        if not asked:
            return Place(mirror.project, mirror.entity or os.environ.get("WANDB_ENTITY") or None)
        given = asked
    text = given or os.environ.get("WANDB_PROJECT") or own or compose(["data.root=unused"]).tracker.project or ""
    entity, _, project = text.rpartition("/")
    if not project or "/" in entity:
        raise UserError(f"{text!r} is no project; give --project [ENTITY/]PROJECT")
    return Place(project, entity or os.environ.get("WANDB_ENTITY") or None)

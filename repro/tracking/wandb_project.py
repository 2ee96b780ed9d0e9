"""The W&B project of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from repro.config import Tracker
from repro.config.compose import compose
from repro.config.data_roots import NO_FOLDER
from repro.errors import UserError
from repro.tracking.mirror_file import Mirror


@dataclass(frozen=True)
class WandbProject:
    """A W&B project. `entity` is its user or team, None for the user's default entity."""

    name: str
    entity: str | None = None


def choose_project(tracker: Tracker | None, option: str | None = None, mirror: Mirror | None = None) -> WandbProject:
    """Return `option`, else the project that the run is already in, else WANDB_PROJECT, else `tracker.project`.

    Args:
        tracker: tracker of the run's config; if None or without a project, as in some records, the default is used.
        option: `[entity/]project` from the command line.
        mirror: mirror of the record. A run on the server stays in its project; for a run that was only written offline,
            WANDB_PROJECT takes precedence.

    Raises `UserError` for anything but `[entity/]project`.
    """
    default = tracker if tracker is not None and tracker.project else compose([NO_FOLDER]).tracker
    override = option
    if not option and mirror is not None and mirror.project:
        override = None if mirror.url else os.environ.get("WANDB_PROJECT")
        if not override:
            return WandbProject(mirror.project, mirror.entity or os.environ.get("WANDB_ENTITY") or default.entity)
    text = override or os.environ.get("WANDB_PROJECT") or default.project or ""
    entity, _, name = text.rpartition("/")
    if not name or "/" in entity:
        raise UserError(f"{text!r} is no project; give --project [ENTITY/]PROJECT")
    return WandbProject(name, entity or os.environ.get("WANDB_ENTITY") or default.entity)

"""Sharing a runs folder between users: file modes, and whose runs may be stopped."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path


def adopt_group_umask(folder: Path) -> None:
    """Let the group write to the files that this process creates from now on, if it may write to `folder`.

    With the usual umask 022, other users could not use the locks and folders in a shared runs folder. The mode of the
    folder says whether it is shared (`chmod 2770`; setgid makes new files belong to its group), similar to git's
    `core.sharedRepository`. This does nothing if the folder is missing or not shared.
    """
    try:
        mode = folder.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IWGRP:
        before = os.umask(0o077)  # the umask can only be read by setting it
        os.umask(before & ~0o070)


def may_signal(user: int | None) -> bool:
    """Return whether this process may signal and cancel the runs of a user, given as a uid (None if unknown)."""
    return user is None or os.getuid() in (0, user)


def user_name(user: int | None) -> str:
    """Return the name of a user, or the uid if it has no name on this machine."""
    if user is None:
        return "an unknown user"
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"

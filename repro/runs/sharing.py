"""A runs folder that several people write into: what one of them makes, the others may change."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path


def share_as(folder: Path) -> None:
    """Make files from here on as `folder` is: where its group may write into it, that group may change them.

    The usual umask 022 would leave the others with locks and folders that only their maker can use. People say that
    they share by the folder's mode alone (`chmod 2770`: setgid keeps what is made below it in its group), as with
    git's `core.sharedRepository`. What is not there, or not shared, changes nothing.
    """
    try:
        mode = folder.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IWGRP:
        before = os.umask(0o077)  # there is no way to look at it that does not set it
        os.umask(before & ~0o070)


def may_act_for(user: int | None) -> bool:
    """Whether this process may signal and cancel what that user (a number; None: nobody knows who) has started."""
    return user is None or os.getuid() in (0, user)


def name_of(user: int | None) -> str:
    """A user as people know them; the number of one that this machine does not know."""
    if user is None:
        return "somebody"
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"

"""Where `conf/` and `paper_tables/` are, and the user's own tables and config files.

Both folders are at the top level of a clone, and inside the package once it is installed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from repro.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def package_data_dir(name: str) -> Path:
    """The folder `conf` or `paper_tables` of the project: data of the package in a wheel (see pyproject.toml)."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


CONF_DIR = package_data_dir("conf")
TABLES_DIR = package_data_dir("paper_tables")
IS_INSTALLED = CONF_DIR.parent == _PACKAGE  # from a wheel, in contrast to a clone
PATH_VARIABLE = "REPRO_PATH"  # folders that hold a conf/, a paper_tables/ or both, separated by `:`
NOT_GROUPS = ("sweeps",)  # files for W&B
added_config_dirs: list[Path] = []


def expand_home(name: str) -> str:
    """Expand `~` at the start of the name of a file or folder.

    Raises `UserError` for a user without a home folder, for a name that is not UTF-8, which no record can hold, and for
    an empty name, which pathlib takes for the current folder.
    """
    if not name:
        raise UserError(f"{name!r}: an empty name; write . for the current folder")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name!r}: not UTF-8; rename it") from None
    expanded = os.path.expanduser(name)
    if expanded.startswith("~"):
        user = name.partition("/")[0].removeprefix("~")
        reason = f"no user {user}" if user else "no home folder (HOME is not set)"
        raise UserError(f"{name}: {reason}; write the folder in full, or ./{name} if that is its name")
    return expanded


def in_home(*names: str) -> list[Path]:
    """Return files in the user's home folder; none if there is no such folder, as in some containers."""
    try:
        return [Path(expand_home("~")) / name for name in names]
    except UserError:
        return []


def user_folders() -> list[Path]:
    """The folders that REPRO_PATH names. Raises `UserError` for one that does not exist."""
    folders = [Path(expand_home(entry)) for entry in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if entry]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"{PATH_VARIABLE}: {missing[0]}: no such folder")
    return folders


def config_dirs() -> tuple[Path, ...]:
    """The folders, in the order in which an option is looked up."""
    own = [folder / "conf" for folder in user_folders()]
    return CONF_DIR, *added_config_dirs, *(folder for folder in own if folder.is_dir())


def table_dirs() -> tuple[Path, ...]:
    """The folders of tables, the project's first."""
    own = [folder / TABLES_DIR.name for folder in user_folders()]
    return TABLES_DIR, *(folder for folder in own if folder.is_dir() and folder.resolve() != TABLES_DIR)


def add_config_dirs(folders: Iterable[str | Path]) -> None:
    """Add folders for this process, such as `--config-dir`. Raises `UserError` for one that does not exist."""
    for entry in folders:
        scheme, _, rest = str(entry).partition("://")
        if rest and scheme != "file":
            raise UserError(f"{entry}: config files are read from folders only, not from {scheme}://; name a folder")
        folder = Path(expand_home(str(entry).removeprefix("file://"))).absolute()
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of config files")
        if folder not in added_config_dirs:
            added_config_dirs.append(folder)


def groups() -> dict[str, tuple[str, ...]]:
    """The config groups and the options of each."""
    return _groups(config_dirs())


@functools.cache
def _groups(folders: tuple[Path, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for file in (file for folder in folders for file in folder.glob("*/*.yaml")):
        if file.parent.name not in NOT_GROUPS:
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: tuple(sorted(options)) for group, options in sorted(found.items())}

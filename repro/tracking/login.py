"""The user's W&B settings: API key and environment variables. Does not import the client."""

from __future__ import annotations

import configparser
import netrc
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from repro.config import Config
from repro.errors import UserError
from repro.locations import expand_home, in_home
from repro.tracking.mirror_file import NOT_LOGGED_IN

Mode = Literal["auto", "online", "offline", "disabled"]
_DEFAULT_SERVER = "https://api.wandb.ai"
_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


def mirror_mode(config: Config) -> Mode:
    """Return `tracker.mode`, or if that is `auto`, the mode set by WANDB_DISABLED or WANDB_MODE.

    Raises `UserError` for a WANDB_MODE that the client does not support.
    """
    if config.tracker.mode != "auto":
        return config.tracker.mode
    return "disabled" if is_disabled(config) else _environment_mode()


def is_disabled(config: Config) -> bool:
    """Return whether a run has no mirror."""
    if config.tracker.mode != "auto":
        return config.tracker.mode == "disabled"
    is_off = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes")
    return is_off or os.environ.get("WANDB_MODE") == "disabled"


def _environment_mode() -> Mode:
    name = os.environ.get("WANDB_MODE", "")
    if name and name not in _MODES:
        raise UserError(f"WANDB_MODE={name}: no such mode; valid: {', '.join(_MODES)}")
    return _MODES.get(name, "auto")


def key_source() -> str | None:
    """Return where the API key for the client's server is stored, or None without a key. Does not contact the server.

    In contrast, `wandb.login` verifies the key with the server and waits if the server does not respond.
    Raises `UserError` for a netrc file that cannot be read.
    """
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if os.environ.get(name):
            return name
    host = urlsplit(_server()).hostname
    path = os.environ.get("NETRC")
    for file in [Path(expand_home(path))] if path else in_home(".netrc", "_netrc"):
        try:
            if host and netrc.netrc(file).authenticators(host):
                return str(file)
        except FileNotFoundError:
            continue
        except netrc.NetrcParseError as error:  # its message quotes the file, possibly including the key
            raise UserError(f"{file}: line {error.lineno} is invalid; it may hold your W&B key: fix it") from None
        except (OSError, UnicodeError) as error:
            raise UserError(f"{file}: cannot be read ({type(error).__name__}); it may hold your W&B key") from None
    return None


def is_logged_in() -> bool:
    """Return whether there is a key, or an unreadable netrc file that may contain one."""
    try:
        return key_source() is not None
    except UserError:
        return True


def require_login() -> None:
    """Raise `UserError` without a key, and for a WANDB_MODE that the client would reject."""
    _environment_mode()
    if key_source() is None:
        raise UserError(f"{NOT_LOGGED_IN}: run `wandb login`, or set WANDB_API_KEY")


def _server() -> str:
    """Return the URL of the client's server, from the environment, the client's settings file, or the default."""
    if server := os.environ.get("WANDB_BASE_URL"):
        return server
    folder = os.environ.get("WANDB_CONFIG_DIR")
    folders = [Path(folder)] if folder else in_home(".config/wandb")
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read([each / "settings" for each in folders], encoding="utf-8")
    except (configparser.Error, UnicodeError):
        return _DEFAULT_SERVER
    return settings.get("default", "base_url", fallback=_DEFAULT_SERVER)

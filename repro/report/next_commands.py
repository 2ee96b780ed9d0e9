"""Commands that a report tells its reader to run next: targets of make in a clone, `repro` from a wheel."""

from __future__ import annotations

from repro.locations import IS_INSTALLED


def launch_command(table: str, scale: str, *, is_installed: bool = IS_INSTALLED) -> str:
    """Return the command that runs a table."""
    return f"repro launch {table} --scale {scale}" if is_installed else f"make {table} SCALE={scale}"


def figures_command(table: str, scale: str, *, is_installed: bool = IS_INSTALLED) -> str:
    """Return the command that draws the figures of finished models."""
    if not is_installed:
        return f"make figures TABLE={table} SCALE={scale}"
    return " && ".join(f"repro {command} {table} --scale {scale}" for command in ("extract", "interpret", "report"))

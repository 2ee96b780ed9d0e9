"""Commands that reports advise exist where they are read: targets of make in a clone, `repro` from a wheel."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from repro.cli.main import parse
from repro.report.next_commands import figures_command, launch_command

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (launch_command, figures_command)


@pytest.mark.parametrize("command", COMMANDS)
def test_in_a_clone_they_are_targets_of_make(command: Callable[..., str]) -> None:
    words = shlex.split(command("table2", "mini", is_installed=False))
    done = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "table2" in done.stdout
    assert "--scale mini" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_from_a_wheel_they_are_commands_of_repro(command: Callable[..., str]) -> None:
    text = command("table2", "mini", is_installed=True)
    for part in text.split(" && "):
        name, *words = shlex.split(part)
        options = parse(words)
        assert (name, options.table, options.scale) == ("repro", "table2", "mini")

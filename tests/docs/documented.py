"""The commands that README and docs tell a reader to type, and whether a command line means something here."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from pathlib import Path

from repro.cli.main import parse
from repro.cli.selection import selection
from repro.config.compose import compose
from repro.config.overrides import split_sweep
from repro.locations import groups
from repro.tables.loader import find_row, load_table, table_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("[CR]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
# Stands for one of the reader's own: `repro logs table1 ROW`.
PLACEHOLDERS = {"ROW": "deit_tiny/dense", "TABLE": "table1"}


def in_blocks(program: str) -> list[tuple[str, str]]:
    """(page, line) of every code line that begins with this program, comments and prompts taken off."""
    found = []
    for page in PAGES:
        for line in re.findall(r"^    (?:\$ )?(?:\.venv/bin/)?(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            if line.startswith(f"{program} "):
                found.append((page.name, line.partition(" #")[0].strip()))
    return found


def in_prose(program: str) -> list[tuple[str, str]]:
    """(page, line) of every command line inside a sentence; the bare name of a command is none."""
    found = []
    for page in PAGES:
        for line in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            words = line.removeprefix(".venv/bin/").split()
            names = 3 if words[1:2] in (["wandb"], ["bench"]) else 2
            if words[:1] == [program] and len(words) > names - (program == "make") and "--help" not in words:
                found.append((page.name, " ".join(line.removeprefix(".venv/bin/").split())))
    return found


def check(words: list[str]) -> None:
    """Raise for a line of `repro` that would end with an error of the person who typed it.

    Its options are read as the command line reads them; its table, its rows and its overrides have to be there.
    """
    options = parse([PLACEHOLDERS.get(word, word) for word in words])
    scale = getattr(options, "scale", "local")
    if words[:2] in (["wandb", "push"], ["wandb", "pull"]):
        for word in options.words:
            check_place(word)
    elif words[0] == "export":
        check_place(options.what)
        check_overrides([], scale, options.words)
    elif words[0] == "eval":
        check_evaluation(options)
    elif words[0] == "new":
        assert options.name in ("NAME", options.name.lower())
    elif words[0] == "adopt":
        check_overrides(list(find_row(options.row)[1].overrides), scale, options.words)
    elif words[0] in ("train", "doctor"):
        for one in split_sweep(options.words, groups()) if getattr(options, "multirun", False) else [options.words]:
            check_overrides([], scale, one)
    elif getattr(options, "table", None) == "runs/by_hand":  # the records of the reader's single runs
        assert words[0] in ("status", "logs", "cancel")
    elif getattr(options, "table", None):
        check_selection(options, scale)


def check_evaluation(options: argparse.Namespace) -> None:
    """One model: a row of a table, a record's folder, an export's or a file of the reader's own, or timm's."""
    names = [word for word in options.words if "=" not in word]
    assert len(names) == (0 if options.pretrained else 1), names
    is_own = any(Path(name).suffix for name in names) or names in (["exported"], ["FILE"])
    if names and not is_own:
        check_place(names[0])
    check_overrides([], "paper" if is_own or options.pretrained else "local", options.words[len(names) :])


def check_selection(options: argparse.Namespace, scale: str) -> None:
    """A table, rows of it, and overrides that their configs take."""
    table = load_table(options.table)
    if hasattr(options, "seeds"):
        selected = selection(options)
        rows, overrides = list(selected.patterns), list(selected.overrides)
    else:
        rows = [word for word in options.words if "=" not in word]
        overrides = [word for word in options.words if "=" in word]
    chosen = table.select(rows, scale)
    assert chosen
    for row in chosen[:1]:
        check_overrides(list(row.overrides), scale, overrides)


def check_overrides(before: list[str], scale: str, overrides: list[str]) -> None:
    """Compose a config with them; nothing is read, so it does not matter where the images would be."""
    # Described on the same page, and made by the reader.
    made = {"launcher=mine": "launcher=slurm", "experiment=mine": "experiment=svite_longer"}
    known = [made.get(word, word) for word in overrides]
    own = [] if any(word.startswith("scale=") for word in known) else [f"scale={scale}"]
    compose([*before, *own, "data.root=nowhere", *known])


def check_place(word: str) -> None:
    """A table, a row of one, or a folder of records of one."""
    parts = word.removeprefix("runs/").split("/")
    if parts[0] in table_names():
        parts = parts[1:]
        rows = {row.id for name in table_names() for row in load_table(name).every_row}
        assert not parts or any(f"{row}/".startswith("/".join(parts[:2]) + "/") for row in rows), word
        return
    assert any(word == row.id for name in table_names() for row in load_table(name).every_row), word


def repro_lines(said: str) -> list[list[str]]:
    """The calls of `repro` in what `make -n` prints; those that a shell's loop fills in are not told."""
    calls = (re.findall(r"\.venv/bin/repro ([^;)]+)", line) for line in said.splitlines())
    return [shlex.split(call) for call in itertools.chain.from_iterable(calls) if "$" not in call and "|" not in call]

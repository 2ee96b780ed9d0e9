"""Write a commented skeleton of a new table or method.

Examples:
  repro new table dynamicvit                  # a table with two example rows, which runs unchanged
  repro new table dynamicvit --dir lab        # lab/paper_tables/dynamicvit, found with REPRO_PATH=lab
  repro new method mymethod                   # masks on weights; --kind tokens: token dropping

A table is written to the clone, or to the first folder of REPRO_PATH, or to the current folder. A method is written to
a clone: its class, its config, a test and a section of docs/methods.md.
"""

from __future__ import annotations

import argparse
import keyword
import re
import shlex
from pathlib import Path
from typing import Any

from repro.cli.options import add_command, folder
from repro.cli.selection import program
from repro.errors import UserError
from repro.locations import CONF_DIR, IS_INSTALLED, PATH_VARIABLE, TABLES_DIR, groups, user_folders

KINDS = ("weights", "tokens")
# Targets of the Makefile, and the folder of runs that belong to no table.
RESERVED = (
    *("help", "setup", "status", "figures", "report", "test", "lint", "bench", "notebooks", "lock", "clean"),
    "by_hand",
)
_SKELETONS = Path(__file__).parent / "skeletons"
_NEXT_SECTION = "# Adding a method\n"


def add_parser(commands: Any) -> None:
    command = add_command(commands, "new", __doc__)
    kinds = command.add_subparsers(required=True, metavar="WHAT")
    table = add_command(kinds, "table", "Write a table that can be listed, planned, run and reported.", new_table)
    table.add_argument("name", help="name of the table: lower-case letters, digits and _")
    table.add_argument("--dir", type=folder, metavar="DIR", help="write DIR/paper_tables/NAME")
    method = add_command(kinds, "method", "Write a method with config, test and docs to a clone.", new_method)
    method.add_argument("name", help="name of the method: lower-case letters, digits and _")
    method.add_argument("--kind", choices=KINDS, default="weights", help="what the method changes (default weights)")


def new_table(options: argparse.Namespace) -> int:
    """Write a table, and `sources.csv` next to it if there is none."""
    from repro.tables.loader import table_names

    name = _checked(options.name, (*table_names(), *RESERVED))
    own = options.dir or next(iter(user_folders()), Path() if IS_INSTALLED else TABLES_DIR.parent)
    tables = own / TABLES_DIR.name
    files = {
        tables / name / "table.yaml": _filled("table/table.yaml.j2", name),
        tables / name / "rows.csv": _filled("table/rows.csv", name),
        tables / name / "published.csv": _filled("table/published.csv", name),
    }
    if not (tables / "sources.csv").exists():
        files[tables / "sources.csv"] = _filled("table/sources.csv", name)
    _write(files)
    if own.resolve() not in [TABLES_DIR.parent, *(each.resolve() for each in user_folders())]:
        print(f"before other commands: export {PATH_VARIABLE}={shlex.quote(str(own.resolve()))}")
    repro = shlex.join(program())
    print(f"next: edit these files, then {repro} list {name}; {repro} launch {name} --scale smoke")
    return 0


def new_method(options: argparse.Namespace) -> int:
    """Write the files of a method, and its section of docs/methods.md."""
    clone = CONF_DIR.parent
    docs = clone / "docs" / "methods.md"
    if IS_INSTALLED or not docs.is_file():
        raise UserError("repro new method writes into a clone of the project, and this repro is installed; clone it")
    name, kind = _checked(options.name, groups()["method"]), options.kind
    files = {
        clone / "repro" / "methods" / kind / f"{name}.py": _filled(f"{kind}/method.py.j2", name),
        clone / "conf" / "method" / f"{name}.yaml": _filled(f"{kind}/method.yaml.j2", name),
        clone / "tests" / "methods" / kind / f"test_{name}.py": _filled(f"{kind}/test.py.j2", name),
    }
    _write(files)
    text = docs.read_text(encoding="utf-8")
    section = _filled(f"{kind}/section.md.j2", name)
    docs.write_text(text.replace(_NEXT_SECTION, section + _NEXT_SECTION), encoding="utf-8")
    print(f"added a section to {docs}")
    print(f"next: {shlex.join(program())} train backbone=deit_tiny method={name} scale=smoke; then a row in a table")
    return 0


def _checked(name: str, taken: tuple[str, ...]) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"{name}: not a valid name; use lower-case letters, digits and _, and start with a letter")
    if name in taken:
        raise UserError(f"{name}: taken; choose another name")
    return name


def _filled(skeleton: str, name: str) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_SKELETONS),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # code and YAML; `name` is a word
    )
    class_name = "".join(part.capitalize() for part in name.split("_"))
    return environment.get_template(skeleton).render(name=name, class_name=class_name)


def _write(files: dict[Path, str]) -> None:
    """Write new files, or none if one of them exists."""
    if existing := [path for path in files if path.exists()]:
        raise UserError(f"{existing[0]}: exists; remove it, or choose another name")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")

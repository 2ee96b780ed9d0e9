"""README and docs: every relative link leads somewhere, every command named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro.cli.main import COMMANDS
from repro.tables.loader import table_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("[CR]*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)]:
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path
        assert found.exists(), f"{page.name}: {target} leads nowhere"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_pictures_are_small_and_each_is_shown() -> None:
    shown = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in sorted((ROOT / "docs" / "images").iterdir()):
        assert picture.stat().st_size < 300_000, picture.name
        assert f"images/{picture.name}" in shown, f"no page shows {picture.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9_]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    # Made from what paper_tables holds.
    targets |= {name for table in table_names() for name in (table, table.replace("table", "figure"))}
    # In code only: prose makes other things.
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^    (.+)$", text, flags=re.MULTILINE)])
    for target in re.findall(r"\bmake ([a-z][a-z0-9_]*)", code):
        assert target in targets, f"{page.name}: make {target}"
    for command in re.findall(r"(?:^|[ `/])repro ([a-z][a-z-]*)", code, flags=re.MULTILINE):
        assert command in COMMANDS, f"{page.name}: repro {command}"

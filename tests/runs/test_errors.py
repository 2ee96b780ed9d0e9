"""How messages count: numbers with their nouns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import repro
from repro.errors import count_of

# A number of any size, directly before its noun in the plural: `{len(files)} files`.
_COUNT = re.compile(r"\{len\([^{}]*\)\} [a-z]+s\b")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 class folders"), (1, "1 class folder"), (2, "2 class folders"), (2048, "2,048 class folders")],
)
def test_numbers_agree_with_their_nouns(count: int, text: str) -> None:
    assert count_of(count, "class folder") == text
    assert count_of(count, "entry", "entries") == text.replace("class folders", "entries").replace(
        "class folder", "entry"
    )


def test_no_message_says_1_files() -> None:
    code = Path(repro.__file__).parent.rglob("*.py")
    found = [f"{file}: {match[0]}" for file in code for match in _COUNT.finditer(file.read_text(encoding="utf-8"))]
    assert found == []

"""A table of the user's own: a copy of one of ours in a folder of REPRO_PATH."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from repro.locations import TABLES_DIR


@pytest.fixture
def copy_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Copy a table under another name, and return the folder of the copy."""

    def copy(name: str, new: str) -> Path:
        folder = tmp_path / "paper_tables" / new
        shutil.copytree(TABLES_DIR / name, folder)
        file = folder / "table.yaml"
        file.write_text(file.read_text(encoding="utf-8").replace(f"name: {name}\n", f"name: {new}\n"), encoding="utf-8")
        monkeypatch.setenv("REPRO_PATH", str(tmp_path))
        return folder

    return copy

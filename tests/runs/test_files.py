"""Atomic files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repro.files import write_json, write_text


@pytest.mark.parametrize(("durable", "waits"), [(True, ["file", "folder"]), (False, [])])
def test_kept_files_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, waits: list[str]
) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append("folder" if Path(f"/dev/fd/{file}").is_dir() else "file")
    )
    write_json(tmp_path / "new.json", {"a": 1}, durable=durable)
    assert synced == waits
    assert (tmp_path / "new.json").read_text() == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize("durable", [True, False])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "old.txt"
    write_text(path, "old", durable=durable)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800", durable=durable)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["old.txt"]

"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repro.runs.files import write_json, write_text


@pytest.mark.parametrize(("is_kept", "waits"), [(True, ["file", "folder"]), (False, [])])
def test_what_is_kept_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool, waits: list[str]
) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append("folder" if Path(f"/dev/fd/{file}").is_dir() else "file")
    )
    write_json(tmp_path / "new.json", {"a": 1}, is_kept=is_kept)
    assert synced == waits
    assert (tmp_path / "new.json").read_text() == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_cannot_be_written_leaves_the_old(tmp_path: Path, is_kept: bool) -> None:
    path = tmp_path / "old.txt"
    write_text(path, "old", is_kept=is_kept)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800", is_kept=is_kept)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["old.txt"]

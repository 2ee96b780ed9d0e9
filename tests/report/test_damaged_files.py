"""Valid JSON files with invalid content: each error is one line that names the file and says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_records import collect, frame_and_evidence, write_record, write_saving

from repro.errors import UserError
from repro.files import write_json
from repro.report.card import remembered_affiliation
from repro.report.figures.interpretation import draw_interpretation
from repro.report.figures.mask_history import read_histories
from repro.report.figures.pending import pending_figures
from repro.report.folders import report_folder
from repro.report.page import write_index
from repro.runs.record import Record
from repro.runs.schemas import ANATOMY_SCHEMA
from repro.runs.status import Status
from repro.runs.timing import read_timing, timing_path
from repro.tables.rows import Table
from repro.tracking.mirror_file import Mirror, mirror_file, read_mirror

ROW = "deit_small/s2vite-40"
ANATOMY = {
    "schema": ANATOMY_SCHEMA,
    "heads": [[True, False]] * 2,
    "images": np.zeros((2, 4, 4)).tolist(),
    "kept": [[[True, True, False, True]] * 2],
    "patch_size": 2,
}
MEASURED = {"pixel_accuracy_pct": 80.0, "mean_accuracy_pct": 75.0, "mean_iou_pct": 61.25}
INTERPRETATION = {
    "schema": 1,
    "data": "shapes",
    "images": 7,
    "images_with_mask": 7,
    "maps": {"rollout": MEASURED},
    "stages": [{"kept_pct": 50.0, "object_kept_pct": 90.0, "background_kept_pct": 10.0}],
}
MASKS = {"kind": "masks", "update": 1, "epoch": 1.0, "churn": 0.1, "density/a": 0.5}


@pytest.fixture
def record(table: Table, tmp_path: Path) -> Record:
    """A finished record with all files that a report reads."""
    (row,) = table.select([ROW])
    made = write_record(tmp_path, row, "local", 0)
    gpu = {"name": "a card", "memory_gib": 80, "driver": None}
    origin = {"cpu": "a cpu", "cpu_count": None, "gpu": [gpu], "versions": {"torch": "2.9", "av": None}}
    write_json(made.path / "provenance.json", origin)
    write_json(made.path / "anatomy.json", ANATOMY)
    write_json(made.path / "interpretation.json", INTERPRETATION)
    write_saving(tmp_path, row, 24.0)
    return made


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change that removes keys."""
    return lambda found: {key: value for key, value in found.items() if key not in names}


def read(record: Record, name: str) -> Any:
    """Read a file of the record with its reader."""
    return getattr(record, name)()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("result", {"top1_best_pct": "abc"}, "top1_best_pct should be a valid number, not 'abc'"),
        ("result", {"top1_best_pct": 4000.0}, "top1_best_pct should be less than or equal to 100, not 4000.0"),
        ("result", {"top1_last_pct": -1}, "top1_last_pct should be greater than or equal to 0, not -1"),
        ("result", {"top1_best_pct": None}, "top1_best_pct should be a valid number, not None"),
        ("result", {"top1_best_pct": True}, "top1_best_pct should be a valid number, not True"),
        ("result", {"top1_full_pct": 101}, "top1_full_pct should be from 0 to 100"),
        ("result", {"density/blocks.0.mlp": "half"}, "density/blocks.0.mlp should be a number"),
        ("result", without("wall_s", "updates"), "no updates, wall_s"),
        ("status", {"state": "paused"}, "state should be 'planned', 'submitted', 'running', 'requeued'"),
        ("status", {"heartbeat": "x"}, "heartbeat should be a valid number, not 'x';"),
        ("status", {"pid": [1]}, "pid should be a valid integer"),
        ("provenance", {"versions": ["torch"]}, "versions should be a valid dictionary, not ['torch']"),
        ("provenance", {"gpu": [{}]}, "no gpu.0.name, gpu.0.memory_gib"),
        ("provenance", {"commit": 7}, "commit should be a valid string, not 7"),
        ("anatomy", without("heads"), "no heads"),
        ("anatomy", without("schema"), "no schema"),
        ("anatomy", {"heads": [[True], []]}, "heads should have the same length in each layer"),
        ("anatomy", without("images"), "kept should have every image in each stage, and needs a patch_size"),
        ("anatomy", {"kept": [[[True]] * 2]}, "images should have one size, and kept should have every patch"),
        ("anatomy", {"images": [[[0.0] * 4] * 3 + [[0.0]]] * 2}, "images should have one size"),
        ("interpretation", without(*INTERPRETATION), "no data, images, images_with_mask, maps, stages"),
        ("interpretation", {"maps": {"rollout": {**MEASURED, "mean_iou_pct": 101}}}, "maps.rollout.mean_iou_pct"),
        ("interpretation", {"stages": [{"kept_pct": 1, "object_kept_pct": 2}]}, "object_kept_pct and background"),
    ],
)  # fmt: skip
def test_wrong_content_is_named(record: Record, name: str, change: Any, words: str) -> None:
    file = record.path / f"{name}.json"
    before = json.loads(file.read_text())
    assert read(record, name) in (before, Status(**before) if name == "status" else None), "whole, it is as written"
    write_json(file, change(before) if callable(change) else {**before, **change})
    with pytest.raises(UserError) as raised:
        read(record, name)
    said = str(raised.value)
    assert said.startswith(f"{file}: ")
    assert words in said
    assert "; remove it" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["result", "status", "provenance", "anatomy", "interpretation"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "[1] where an object should be"),
        ("null", "None where an object should be"),
        ('{"top', "damaged (Unterminated string"),
        ("", "damaged (Expecting value"),
        ('{"a": NaN}', "damaged (NaN is not a JSON number)"),
    ],
)
def test_what_is_no_object_is_damaged(record: Record, name: str, text: str, words: str) -> None:
    (record.path / f"{name}.json").write_text(text)
    with pytest.raises(UserError, match=rf"{name}\.json: ") as raised:
        read(record, name)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_keys_of_a_newer_version_are_passed_over(record: Record) -> None:
    write_json(record.path / "status.json", {**asdict(record.status()), "mood": "good"})
    assert record.status().state == "done"
    write_json(record.path / "result.json", {**(record.result() or {}), "mood": "good"})
    assert (record.result() or {})["mood"] == "good"


def test_a_result_of_another_schema_is_for_its_reader_to_judge(record: Record) -> None:
    write_json(record.path / "result.json", {"schema": 2, "top1": 0.5})
    assert record.result() == {"schema": 2, "top1": 0.5}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"update": 1}', "no kind"),
        ('{"kind": "eval", "epoch": 1, "top1_pct": 5}', "no update"),
        ('{"kind": "eval", "update": 1, "top1_pct": 5}', "eval without epoch"),
        ('{"kind": "eval", "update": 1, "epoch": 1}', "eval without top1_pct"),
        ('{"kind": "eval", "update": 1, "epoch": 1, "top1_pct": NaN}', "NaN is not a JSON number"),
        ('{"kind": "eval", "update": 1, "epoch": 1, "top1_pct": 4000}', "top1_pct should be from 0 to 100, not 4000"),
        ('{"kind": "masks", "update": 1}', "masks without epoch"),
        ('{"kind": "masks", "update": 1, "epoch": 1, "churn": "x"}', "churn should be a number, not 'x'"),
    ],
)
def test_a_metric_line_that_is_whole_and_wrong_has_its_number(record: Record, line: str, words: str) -> None:
    good = {"kind": "eval", "update": 3, "epoch": 1, "top1_pct": 5.0}
    record.metrics_file.write_text(f'{json.dumps(good)}\n{{"kind": "masks", "upd\n{json.dumps(MASKS)}\n{line}\n')
    with pytest.raises(UserError) as raised:
        list(record.metrics())
    assert str(raised.value) == f"{record.metrics_file}: line 4: {words}; remove that line"
    if '"kind"' in line:
        with pytest.raises(UserError, match="line 4: "):
            list(record.metrics(json.loads(line)["kind"]))
    record.metrics_file.write_text("\n".join(record.metrics_file.read_text().splitlines()[:3]))
    assert list(record.metrics()) == [MASKS, good]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pairs": []}, "too few pairs ([])"),
        ({"pairs": [[0, 0]]}, "pairs.0.0 should be greater than 0, not 0"),
        ({"pairs": [[1.0]]}, "no pairs.0.1"),
        ({"setting": {}}, "no setting.device, setting.batch, setting.dtype, setting.threads, setting.is_compiled"),
        ({"row": "deit_small/dense"}, "is the timing of table1 deit_small/dense"),
        ({"schema": 0}, "schema 0, this code reads 1"),
        (None, "[1] where an object should be"),
    ],
)
def test_a_damaged_timing(record: Record, tmp_path: Path, change: dict[str, Any] | None, words: str) -> None:
    file = timing_path(tmp_path, "table1", ROW)
    timing = json.loads(file.read_text())
    found = read_timing(tmp_path, "table1", ROW)
    assert found is not None
    assert [list(pair) for pair in found.pairs] == timing["pairs"]
    write_json(file, [1] if change is None else {**timing, **change})
    with pytest.raises(UserError) as raised:
        read_timing(tmp_path, "table1", ROW)
    assert str(raised.value).startswith(f"{file}: ")
    assert words in str(raised.value)
    assert str(raised.value).endswith("; remove it to measure again")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row": "deit_small/svite-40"}, "its row is deit_small/svite-40, the record's deit_small/s2vite-40"),
        ({"seed": 1}, "its seed is 1, the record's 0"),
        ({"scale": "smoke"}, "its scale is smoke, the record's local"),
        ({"table": "table3"}, "its table is table3, the record's table1"),
        ({"signature": "beef"}, "its signature is beef, the record's "),
    ],
)
def test_a_result_belongs_to_its_record(
    record: Record, table: Table, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    assert collect(table, table.select([ROW]), "local", [0], tmp_path).loc[0, "n_seeds"] == 1
    write_json(record.path / "result.json", {**(record.result() or {}), **change})
    with pytest.raises(UserError, match=r"result\.json: of another run: ") as raised:
        collect(table, table.select([ROW]), "local", [0], tmp_path)
    assert words in str(raised.value)
    assert str(raised.value).endswith("; remove the folder to run it again")


def test_a_record_of_another_version_beside_a_rows_own_is_not_read(
    record: Record, table: Table, tmp_path: Path
) -> None:
    record.metrics_file.write_text(json.dumps(MASKS) + "\n")
    old = Record(record.path.with_name("seed0-0ld00000"))
    shutil.copytree(record.path, old.path)
    (old.path / "config.yaml").write_text("a: [1")
    _, every = frame_and_evidence(table, table.select([ROW]), "local", [0], tmp_path)
    assert [history.row.id for history in read_histories(every)] == [ROW]
    assert pending_figures(table, every, "local") == ""


def test_lines_of_masks_that_do_not_go_together(record: Record, table: Table, tmp_path: Path) -> None:
    other = {"kind": "masks", "update": 2, "epoch": 2.0, "churn": 0.1, "density/b": 0.5}
    record.metrics_file.write_text(f"{json.dumps(MASKS)}\n{json.dumps(other)}\n")
    _, every = frame_and_evidence(table, table.select([ROW]), "local", [0], tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl: lines of masks name different layers"):
        list(read_histories(every))


@pytest.mark.parametrize("stored", [None, b"PK no archive", "no kept"])
def test_pictures_that_are_gone_or_damaged(
    record: Record, table: Table, tmp_path: Path, stored: bytes | str | None
) -> None:
    if stored == "no kept":
        np.savez_compressed(record.path / "interpretation.npz", images=np.zeros((1, 4, 4, 3), np.uint8))
    elif isinstance(stored, bytes):
        (record.path / "interpretation.npz").write_bytes(stored)
    _, every = frame_and_evidence(table, table.select([ROW]), "local", [0], tmp_path)
    with pytest.raises(UserError, match=r"interpretation\.npz: damaged .*; remove interpretation\.json") as raised:
        draw_interpretation(table, every, 5.5)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "[] where an object should be"),
        ('{"schema": 5}', "no table, scale, tone, "),
        (
            '{"schema": 5, "table": "t", "scale": "s", "tone": "good", "overview": "", "html": ["a"], "runs": []}',
            "html should be a valid string, not ['a']",
        ),
        ('{"sch', "damaged (Unterminated"),
    ],
)
def test_a_damaged_section(tmp_path: Path, text: str, words: str) -> None:
    file = report_folder(tmp_path, "table2", "local") / "section.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        write_index(tmp_path)
    assert str(raised.value).startswith(f"{file}: ")
    assert words in str(raised.value)
    assert str(raised.value).endswith("; remove it, and report that table again")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "[] where an object should be"),
        ('{"variables": [{}]}', "no variables.0.name, variables.0.facts"),
        ('{"variables": [{"name": "Affiliation", "facts": [1]}]}', "variables.0.facts.0 should be a valid string"),
    ],
)
def test_a_damaged_card(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "card.json").write_text(text)
    with pytest.raises(UserError) as raised:
        remembered_affiliation(tmp_path)
    assert words in str(raised.value)
    assert "remove it, and give the affiliation again: repro card " in str(raised.value)


@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        (
            {"state": "asleep", "mode": "none", "run_id": "a"},
            "state should be 'live', 'current' or 'behind', not 'asleep'",
        ),
        ({"state": "live", "mode": "none"}, "no run_id"),
    ],
)
def test_a_damaged_mirror(tmp_path: Path, mirror: dict[str, Any], words: str) -> None:
    write_json(mirror_file(tmp_path), mirror)
    with pytest.raises(UserError) as raised:
        read_mirror(tmp_path)
    assert str(raised.value) == f"{mirror_file(tmp_path)}: {words}; remove it, and repro wandb push {tmp_path}"
    write_json(mirror_file(tmp_path), {"state": "live", "mode": "none", "run_id": "a", "of": "a newer version"})
    assert read_mirror(tmp_path) == Mirror("live", "none", "a")

"""Whatever the files of a record, a table or a site hold: an answer or one line, never a traceback."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from random_input import answer, edited, random_input
from report_records import write_record, write_saving

from repro import locations
from repro.config.compose import compose
from repro.config.site import site_defaults
from repro.errors import UserError
from repro.files import write_json
from repro.launch.manifest import Manifest, manifest_path, read_manifest
from repro.launch.requeue import RequeuePolicy
from repro.locations import PATH_VARIABLE, TABLES_DIR
from repro.report.card import remembered_affiliation
from repro.report.claims import claims_files, load_claims_file
from repro.report.page import SCHEMA as PAGE_SCHEMA
from repro.report.page import write_index
from repro.runs.adopted import AdoptedWeights, WeightsFile, adopted_folder, read_adopted, write_adopted
from repro.runs.record import Record
from repro.runs.schemas import ANATOMY_SCHEMA
from repro.runs.timing import read_timing, timing_path
from repro.tables.loader import load_table
from repro.tables.rows import Row
from repro.tracking.mirror_file import read_mirror


@pytest.mark.parametrize(
    "name", ["config.yaml", "status.json", "result.json", "provenance.json", "mirror.json", "metrics.jsonl"]
)
def test_files_of_a_record(tmp_path: Path, name: str) -> None:
    (row,) = load_table("table1").select(["deit_small/svite-50"])
    record = write_record(tmp_path, row, "local", 0)
    write_json(record.path / "provenance.json", {"commit": "x", "versions": {"torch": "2"}, "gpu": [], "cpu_count": 2})
    write_json(record.path / "mirror.json", {"state": "live", "mode": "none", "run_id": "a"})
    record.metrics_file.write_text(
        '{"kind": "eval", "update": 1, "epoch": 1, "top1_pct": 5.0}\n{"kind": "masks", "update": 1, "epoch": 1}\n'
    )
    readers: dict[str, Callable[[], object]] = {
        "config.yaml": record.config,
        "status.json": record.status,
        "result.json": record.result,
        "provenance.json": record.provenance,
        "mirror.json": lambda: read_mirror(record.path),
        "metrics.jsonl": lambda: [*record.metrics(), *record.metrics("eval")],
    }
    assert readers[name]()

    @given(edited((record.path / name).read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        (record.path / name).write_bytes(content)
        answer(readers[name])

    check()


@pytest.mark.parametrize("name", ["table.yaml", "rows.csv", "published.csv", "ablations.csv", "sources.csv"])
def test_files_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tables = tmp_path / "paper_tables"
    shutil.copytree(TABLES_DIR / "table3", tables / "mine")
    shutil.copy(TABLES_DIR / "sources.csv", tables)
    text = (tables / "mine/table.yaml").read_text(encoding="utf-8")
    (tables / "mine/table.yaml").write_text(text.replace("name: table3", "name: mine"), encoding="utf-8")
    file = next(tables.rglob(name))
    copies = itertools.count()

    def load(content: bytes) -> object:
        own = tmp_path / str(next(copies))  # a table is read once in a process
        shutil.copytree(tables, own / "paper_tables")
        (own / file.relative_to(tmp_path)).write_bytes(content)
        monkeypatch.setenv(PATH_VARIABLE, str(own))
        return load_table("mine")

    assert load(file.read_bytes())

    @given(edited(file.read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        answer(lambda: load(content))

    check()


def saved(record: Record, row: Row) -> dict[str, tuple[Path, Callable[[], object]]]:
    """The other files that are read back, with their readers; each is written here."""
    root, other = record.path.parents[4], {"table": row.table, "row": row.id}
    write_saving(root, row, 20.0)
    evaluation = {"name": "imagenet", "images": 50, "of": 50, "is_imagenet_validation": False}
    file, folder = WeightsFile("a.pth", "0" * 64, "a friend"), adopted_folder(root, row.table, row.id, "0" * 64)
    adopted = AdoptedWeights(**other, scale="paper", file=file, checks=(), data=evaluation, top1_by_draw_pct=(7.0,))
    write_adopted(folder, adopted)
    manifest = Manifest.create(root, row.table, [record], RequeuePolicy(True, 3, 3))
    measured = {"pixel_accuracy_pct": 80.0, "mean_accuracy_pct": 75.0, "mean_iou_pct": 61.25}
    counts = {"data": "shapes", "images": 7, "images_with_mask": 7}
    write_json(
        record.path / "interpretation.json", {"schema": 1, **counts, "maps": {"rollout": measured}, "stages": []}
    )
    heads, images = [[True, False]] * 2, [[[0.0] * 4] * 4] * 2
    write_json(
        record.path / "anatomy.json",
        {"schema": ANATOMY_SCHEMA, "heads": heads, "images": images, "kept": [[[True] * 4] * 2], "patch_size": 2},
    )
    reports = root / "reports"
    write_json(reports / "local/card.json", {"variables": [{"name": "Affiliation", "facts": ["a"], "why_not": ""}]})
    section = reports / "table1/local/section.json"
    write_json(
        section,
        {
            **{
                "schema": PAGE_SCHEMA,
                "table": "table1",
                "scale": "local",
                "title": "T",
                "tone": "off",
                "overview": "O",
            },
            **{"html": "<p>a</p>", "figures": [{"name": "figure1", "caption": "C."}]},
            "runs": [{"row": row.id, "seed": 0, "state": "done", "record": "r", "wandb": "https://example.org/r"}],
        },
    )
    token = manifest.token
    return {
        "timing": (timing_path(root, row.table, row.id), lambda: read_timing(root, row.table, row.id)),
        "adopted": (folder / "adopted.json", lambda: read_adopted(root, row.table, row.id)),
        "manifest": (manifest_path(root, token), lambda: read_manifest(root, token)),
        "interpretation": (record.path / "interpretation.json", record.interpretation),
        "anatomy": (record.path / "anatomy.json", record.anatomy),
        "card": (reports / "local/card.json", lambda: str(remembered_affiliation(reports))),
        "section": (section, lambda: write_index(reports)),
    }


@pytest.mark.parametrize("name", ["timing", "adopted", "manifest", "interpretation", "anatomy", "card", "section"])
def test_other_files_that_are_read_back(tmp_path: Path, name: str) -> None:
    (row,) = load_table("table1").select(["deit_small/svite-50"])
    file, read = saved(write_record(tmp_path, row, "local", 0), row)[name]
    assert read()

    @given(edited(file.read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        file.write_bytes(content)
        answer(read)

    check()


@pytest.mark.parametrize("name", ["method/mine", "experiment/mine", "data/mine"])
def test_own_config_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    contents = {
        "method/mine": b"defaults: [svite, _self_]\nsparsity: 0.6\n",
        "experiment/mine": b"# @package _global_\ndefaults:\n  - override /method: svite\nrecipe: {epochs: 3}\n",
        "data/mine": b"defaults: [digits, _self_]\nlimit_train: 100\n",
    }
    copies = itertools.count()

    def read(content: bytes) -> object:
        folder = tmp_path / str(next(copies))  # a config is composed once in a process
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        monkeypatch.setattr(locations, "added_config_dirs", [folder])
        try:
            return compose([name.replace("/", "=")])
        except UserError as error:
            message = str(error)
        assert all(line.startswith("  ") for line in message.splitlines()[1:])  # a line for each wrong key
        return None

    assert read(contents[name])

    @given(edited(contents[name]))
    @random_input
    def check(content: bytes) -> None:
        read(content)

    check()


def test_claims(tmp_path: Path) -> None:
    copies = itertools.count()

    @given(edited(claims_files()[0].read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        file = tmp_path / f"{next(copies)}.yaml"
        file.write_bytes(content)
        answer(lambda: load_claims_file(file))

    check()


def test_site_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "repro.yaml"
    monkeypatch.setenv("REPRO_CONFIG", str(file))

    @given(edited(b"launcher: slurm\nlauncher.partition: gpu\ndata.root: {imagenet: /data}\ntracker: none\n"))
    @random_input
    def check(content: bytes) -> None:
        file.write_bytes(content)
        answer(site_defaults)

    check()
    file.write_text("launcher: slurm\nlauncher.partition: gpu\n")
    assert compose(["scale=paper", "data.root=x", "launcher=slurm"]).launcher.partition == "gpu"  # type: ignore[union-attr]

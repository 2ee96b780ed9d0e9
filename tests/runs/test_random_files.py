"""Whatever the files of a record, a table or a site hold: an answer or one line, never a traceback."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from random_input import answer, edited, random_input
from report_records import write_record

from repro.config.compose import compose
from repro.config.site import site_defaults
from repro.files import write_json
from repro.locations import PATH_VARIABLE, TABLES_DIR
from repro.report.claims import claims_files, load_claims
from repro.tables.loader import load_table
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


def test_claims(tmp_path: Path) -> None:
    copies = itertools.count()

    @given(edited(claims_files()[0].read_bytes()))
    @random_input
    def check(content: bytes) -> None:
        file = tmp_path / f"{next(copies)}.yaml"
        file.write_bytes(content)
        answer(lambda: load_claims(file))

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

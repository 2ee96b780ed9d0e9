"""`repro new`: what it writes works as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro.cli.main import main
from repro.cli.new import RESERVED
from repro.tables.loader import load_table
from repro.tables.rows import SINGLE_RUNS

ROOT = Path(__file__).resolve().parents[2]


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.mark.slow
def test_a_new_table_lists_plans_runs_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of("new", "table", "dynamicvit", "--dir", "lab") == 0
    printed = capfd.readouterr().out
    assert f"export REPRO_PATH={tmp_path}/lab" in printed
    assert f"{sys.executable} -m repro launch dynamicvit --scale smoke" in printed  # this test is no `repro`
    monkeypatch.setenv("REPRO_PATH", f"{tmp_path}/lab")
    assert [row.id for row in load_table("dynamicvit").rows] == ["deit_tiny/dense", "deit_tiny/svite-50"]
    assert code_of("list", "dynamicvit") == 0
    assert code_of("plan", "dynamicvit", "--scale", "paper") == 0
    assert code_of("launch", "dynamicvit", "--scale", "smoke") == 0
    report = tmp_path / "reports" / "dynamicvit" / "smoke"
    assert "svite-50" in (report / "dynamicvit.md").read_text(encoding="utf-8")
    assert (report / "dynamicvit_local.svg").is_file()
    capfd.readouterr()
    assert code_of("new", "table", "dynamicvit") == 2
    assert capfd.readouterr().err == "repro: dynamicvit: taken; choose another name\n"


@pytest.mark.parametrize("name", ["Dynamic", "9lives", "a/b", "../x", "table1", "test", "class", ""])
def test_a_name_that_cannot_be_is_one_line(name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert code_of("new", "table", name, "--dir", str(tmp_path)) == 2
    assert re.fullmatch(rf"repro: {re.escape(name)}: (not a valid name|taken); .*\n", capfd.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_no_table_has_the_name_of_a_target_or_of_the_folder_of_single_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE)
    assert {*targets, SINGLE_RUNS} <= {*RESERVED}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_has_targets_for_a_table_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "paper_tables" / "tables_x").mkdir(parents=True)
    (tmp_path / "paper_tables" / "tables_x" / "table.yaml").touch()
    wanted = ["tables_x", "figure_tables_x", "figure1"]
    environment = {**os.environ, "REPRO_PATH": str(tmp_path)}
    text = subprocess.check_output(["make", "-n", *wanted], cwd=ROOT, env=environment, text=True)
    calls = re.findall(r"repro (launch|report) (\S+)", text)
    assert calls == [("launch", "tables_x"), ("report", "tables_x"), ("report", "table1")]


@pytest.mark.slow
def test_new_methods_pass_their_tests_and_are_documented(tmp_path: Path) -> None:
    for name in ("repro", "conf", "paper_tables", "docs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "golden", "images"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("repro", "new", "method", "my_masks")
    run("repro", "new", "method", "my_tokens", "--kind", "tokens")
    own = [f"tests/methods/{kind}/test_my_{name}.py" for kind, name in (("weights", "masks"), ("tokens", "tokens"))]
    code = [f"repro/methods/{kind}/my_{name}.py" for kind, name in (("weights", "masks"), ("tokens", "tokens"))]
    tests = [*own, "tests/methods/test_complete_methods.py"]
    assert "8 passed" in run("pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", "my_", *tests)
    run("ruff", "check", "--no-cache", *own, *code)
    run("ruff", "format", "--no-cache", "--check", *own, *code)

"""What README and docs tell a reader to type: understood as written, and run, on real records of the smallest scale."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from repro.cli import _parse, main

with warnings.catch_warnings():  # declared with what pydantic has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import wandb_workspaces.workspaces  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py")))
# Run below; every other command needs what its own tests set up: Slurm, a W&B server, a run at work.
RUN_HERE = (
    "launch table1 deit_tiny/dense deit_tiny/s2vite-30 --scale smoke tracker=none",
    "list table1",
    "plan table1 deit_tiny/* --scale smoke",
    "status table1 deit_tiny/dense --scale smoke",
    "extract table1 deit_tiny/* --scale smoke",
    "bench time table1 deit_tiny/s2vite-30 --budget 3",
    "card table1 deit_tiny/* --scale smoke --affiliation 'a lab'",
    "report table1 deit_tiny/* --scale smoke",
    "wandb dashboard table1 --scale smoke --offline",
    "train backbone=deit_tiny method=svite method.sparsity=0.5 scale=smoke tracker=none",
)


def documented(command: str) -> list[tuple[str, str]]:
    """(page, line) of every code line that begins with this command, comments and prompts taken off."""
    found = []
    for page in PAGES:
        for line in re.findall(r"^    (?:\$ )?(?:\.venv/bin/)?(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            if line.startswith(f"{command} "):
                found.append((page.name, line.partition(" #")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), documented("repro"), ids=lambda word: word.replace("/", "_"))
def test_each_is_understood_as_it_is_written(page: str, line: str) -> None:
    _parse(shlex.split(line)[1:])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("page", "line"), documented("make"), ids=lambda word: word.replace("/", "_"))
def test_each_target_is_one_with_these_variables(page: str, line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word != "..."]
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for word in words:
        name, _, value = word.partition("=")
        if value and name in ("SCALE", "SEEDS", "LAUNCHER", "ROWS"):
            assert value in done.stdout, f"{name} changes nothing"


def test_each_is_run_by_some_test() -> None:
    commands = {line.split()[1] for _, line in documented("repro")}
    assert len(commands) >= 10
    here = {line.split()[0] for line in RUN_HERE}
    for command in commands - here:
        assert re.search(rf'"{command}"|repro {command}\b', TESTS), f"no test runs repro {command}"


@pytest.mark.slow
def test_a_reader_who_types_them_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in RUN_HERE:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(line))
        said = capfd.readouterr()
        assert ended.value.code == 0, f"{line}: {said.err}"
    found = {str(path.relative_to(tmp_path)) for path in (tmp_path / "reports").rglob("*") if path.is_file()}
    assert {"index.html", "figure1.png", "table1_heads.pdf", "table1_masks.svg"} <= {Path(name).name for name in found}
    assert {"reports/table1/table1.csv", "reports/table1/card.md", "reports/table1/table1.wandb.json"} <= found
    assert "a lab" in (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")

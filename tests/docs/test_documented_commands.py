"""What README and docs tell a reader to type: each whole line means something, and each that is cheap is run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from documented import ROOT, check, in_blocks, in_prose, repro_lines

from repro.cli.main import main
from repro.errors import UserError

TESTS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py")))
# What is added to a documented line so that it takes seconds.
SMALL = {
    "list": "",
    "plan": "--scale smoke",
    "launch": "--scale smoke",
    "status": "--scale smoke",
    "logs": "--scale smoke",
    "extract": "--scale smoke",
    "interpret": "--scale smoke",
    "report": "--scale smoke",
    "card": "--scale smoke",
    "bench time": "--budget 2",
    "train": "scale=smoke tracker=none",
    "export": "--scale smoke --batch 2",
    "eval": "--scale smoke",
    "wandb dashboard": "--scale smoke --offline",
}
# Needs GPUs and a cluster, a server, somebody who watches, or minutes: tests of their own do that.
ELSEWHERE = (
    r"--scale paper|launcher=|--watch|--pretrained|weights\.pth|adopt |weights/|shards |"
    r"wandb (push|pull|publish)|train -m|new |doctor --data"
)
OWN_CONFIG = textwrap.dedent(
    re.search(  # type: ignore[union-attr]
        r"`my_configs/experiment/mine.yaml`[^`]*?\n\n((    .*\n)+)",
        (ROOT / "docs" / "configs.md").read_text(encoding="utf-8"),
    )[1]  # the whole block: a reader copies its first line, too
)
# What the documented lines find: the runs that a reader has by then.
BEFORE = (
    "launch table1 deit_tiny/dense deit_tiny/s2vite-30 deit_small/dense deit_small/svite-50 --scale smoke",
    "status table1 deit_tiny/dense",
    "report table1 deit_tiny/*",
)


@pytest.mark.parametrize(("page", "line"), [*in_blocks("repro"), *in_prose("repro")], ids=lambda w: w.replace("/", "_"))
def test_each_line_means_something(page: str, line: str) -> None:
    check(shlex.split(line)[1:])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("page", "line"), [*in_blocks("make"), *in_prose("make")], ids=lambda w: w.replace("/", "_"))
def test_each_target_calls_what_means_something(page: str, line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word != "..." and not word.endswith("=...")]
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for call in repro_lines(done.stdout):
        check(call)
    for word in words:
        name, _, value = word.partition("=")
        if value and name in ("SCALE", "SEEDS", "LAUNCHER", "ROWS"):
            assert value in done.stdout, f"{name} changes nothing"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("list tabel1", "no table 'tabel1'"),
        ("plan table1 'deit_bse/*'", "no row matches 'deit_bse/"),
        ("launch table1 deit_small/s2vite-40 method.weights.grwth=as_released", "grwth"),
        ("train backbone=deit_smal", "deit_smal"),
        ("train -m method=svite method.sparsity=0.3,x", "method.sparsity"),
    ],
)
def test_a_line_that_means_nothing_is_found(line: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check(shlex.split(line))


@pytest.mark.parametrize("line", ["plan table1 --wats 300", "bench tim table1", "export deit_small/svite-50", "lst"])
def test_an_option_that_does_not_exist_is_found(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, UserError)) as raised:
        check(shlex.split(line))
    assert isinstance(raised.value, UserError) or raised.value.code == 2


@pytest.mark.parametrize("line", ["export deit_small/svite-55 --out x", "wandb push table9", "wandb pull p table1/x/y"])
def test_a_place_that_is_none_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check(shlex.split(line))


def test_lines_of_other_commands_have_tests_of_their_own() -> None:
    lines = [line for _, line in in_blocks("repro")]
    elsewhere = [line for line in lines if re.search(ELSEWHERE, line)]
    assert len(lines) - len(elsewhere) > 10
    for line in elsewhere:
        command = re.sub(r"^repro ((?:wandb )?\S+).*", r"\1", line)
        last = command.split()[-1]
        assert re.search(rf'"{last}"|repro {command}\b', TESTS), f"no test runs {line}"


@pytest.mark.slow
def test_a_reader_who_types_them_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "my_configs" / "experiment" / "mine.yaml"  # as docs/configs.md describes it
    mine.parent.mkdir(parents=True)
    mine.write_text(OWN_CONFIG, encoding="utf-8")
    documented = [line.removeprefix("repro ") for _, line in in_blocks("repro") if not re.search(ELSEWHERE, line)]
    first = ("launch", "export")  # what others read
    ordered = sorted(
        dict.fromkeys([*BEFORE, *documented]),
        key=lambda line: (line.split()[0] not in first, line.startswith("export")),
    )
    for line in ordered:
        added = next(more for command, more in SMALL.items() if f"{line} ".startswith(f"{command} "))
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(f"{line} {added}"))
        said = capfd.readouterr()
        assert ended.value.code == 0, f"{line}: {said.err}"
        assert said.out, f"{line} says nothing"
    main_report = "report table1 --scale smoke"
    with pytest.raises(SystemExit):
        main(shlex.split(main_report))
    found = {str(path.relative_to(tmp_path)) for path in (tmp_path / "reports").rglob("*") if path.is_file()}
    assert {"index.html", "figure1.png", "table1_heads.pdf", "table1_churn.svg"} <= {Path(name).name for name in found}
    assert {f"reports/table1/smoke/{name}" for name in ("table1.csv", "card.md", "table1.wandb.json")} <= found
    assert "a lab" in (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "exported" / "model.json").is_file()

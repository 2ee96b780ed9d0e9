"""The command line itself: version, help, completion, mistakes, exit codes."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro.cli.main import COMMANDS, main
from repro.cli.options import LOG_WIDTH, TABLE_WIDTH, announced, console
from repro.tracking.login import key_source

ROOT = Path(__file__).resolve().parents[2]


def output_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("", LOG_WIDTH), ("0", LOG_WIDTH), ("wide", LOG_WIDTH)])
def test_a_pipe_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", columns)
    assert console().width == width
    assert console(TABLE_WIDTH).width == TABLE_WIDTH  # a line for each run, whatever reads it


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_description_and_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, text, _ = output_of(capsys, command, "--help")
    assert code == 0
    assert f"repro {command}" in text.partition("xample")[2], "no example"


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = output_of(capsys, "--version")
    assert (code, text.split()[0]) == (0, "repro")
    assert text.split()[1][0].isdecimal()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lanch", "table1"], "no command 'lanch'; nearest: launch"),
        (["plan", "table1", "--wats", "300"], "plan: no option --wats; nearest: --watts"),
        (["plan", "table1", "--sede=3"], "plan: no option --sede=3; nearest: --seeds"),
        (["launch", "table1", "--scal", "smoke"], "launch: no option --scal; nearest: --scale"),
        (["report", "table1", "--scale", "smok"], "report: --scale: invalid choice 'smok'; nearest: smoke"),
        (["new", "tabel", "x"], "new: WHAT: invalid choice 'tabel'; nearest: table"),
        (["train", "--cfg", "jobb"], "train: --cfg: invalid choice 'jobb'; nearest: job"),
        (["--versoin"], "no option --versoin; nearest: --version (repro --help)"),
        (["-v"], "no option -v; valid: --help, --version (repro --help)"),
        (["launch", "--sede=3"], "launch: no option --sede=3; nearest: --seeds"),
        (["wandb", "--hlep"], "wandb: no option --hlep; nearest: --help (repro wandb --help)"),
        (["train", "-mx"], "train: no option -mx"),
        (["launch"], "launch: the following arguments are required: table (repro launch --help)"),
        (["logs", "table1", "--seed", "x"], "logs: argument --seed: invalid int value: 'x'"),
        (["bench", "time", "table1", "--threads", "0"], "bench: argument --threads: 0: must be an integer, at le"),
        (["bench", "time", "table1", "--batch", "x"], "bench: argument --batch: x: must be an integer, at least 1"),
        (["export", "a/b", "--out", "x", "--threads", "-1"], "export: argument --threads: -1: must be an integer"),
        (["export", "a/b", "--out", "x", "--batch", "0"], "export: argument --batch: 0: must be an integer, at l"),
        (["eval", "a/b", "--workers", "-1"], "eval: argument --workers: -1: must be an integer, at least 0"),
        (["adopt", "a", "a/b", "--draws", "0"], "adopt: argument --draws: 0: must be an integer, at least 1"),
        (["plan", "tabel1"], "no table 'tabel1'"),
        (["publish"], "no command 'publish'"),
        (["bench", "time", "table1", "--device", "gpu"], "bench: --device: invalid choice 'gpu'; nearest: cpu"),
        (["launch", "table1", "--max-attempts", "0"], "launch: argument --max-attempts: 0: must be an integer"),
        (["logs", "table1", "!*"], "table1: no row is selected (repro list table1 shows all)"),
        (["launch", "table1", "!*", "--scale", "smoke"], "table1: no row is selected"),
        (["status", "table1", "--watch", "--json"], "status --watch --json: choose one"),
        (["plan", "table1", "scale=paper"], "scale=paper: use --scale NAME"),
        (["plan", "table1", "seed=3"], "seed=3: use --seeds N"),
        (["plan", "table1", "run.root=/x"], "run.root=/x: use --runs DIR"),
        (["plan", "table1", "method.sparsity=abc"], "method.sparsity=abc: each row of a table sets its own"),
        (
            ["launch", "table1", "experiment=svite_longer"],
            "experiment=svite_longer: each row of a table sets its own backbone, method and sparsity, which an exp",
        ),
        (["wandb", "publish", "no.json"], "no.json: no such file; repro wandb dashboard TABLE writes one"),
        (["launch", "table1", "+experiment=x"], "+experiment=x: each row of a table sets its own"),
        (["eval", "deit_tiny/dense", "method=svite"], "method=svite: each row of a table sets its own"),
        (["export", "deit_tiny/dense", "--out", "x", "scale=smoke"], "scale=smoke: use --scale NAME"),
        (["adopt", __file__, "deit_tiny/dense", "--origin", "x", "~method"], "~method: each row of a table sets its"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_name(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, text, error = output_of(capsys, *words)
    assert (code, text) == (2, "")
    assert error.startswith(f"repro: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("repro la", {"launch"}),
        ("repro launch ta", {"table1", "table2", "table3"}),
        ("repro launch table1 deit_tiny/s2", {"deit_tiny/s2vite-30"}),
        ("repro launch table1 launcher=s", {"launcher=slurm"}),
        ("repro train backbone=resn", {"backbone=resnet50"}),
        ("repro list ta", {"table1", "table2", "table3"}),
        ("repro list table2 resnet50/den", {"resnet50/dense"}),
        ("repro bench time table1 deit_tiny/s2", {"deit_tiny/s2vite-30"}),
        ("repro eval deit_tiny/s2", {"deit_tiny/s2vite-30"}),
        ("repro eval table2/resnet50/den", {"table2/resnet50/dense"}),
        ("repro eval --pretrained backbone=resn", {"backbone=resnet50"}),
        ("repro adopt weights.pth deit_tiny/s2", {"deit_tiny/s2vite-30"}),
        ("repro export deit_tiny/s2", {"deit_tiny/s2vite-30"}),
        ("repro doctor launcher=s", {"launcher=slurm"}),
        ("repro wandb push ta", {"table1", "table2", "table3"}),
        ("repro wandb pull me/project ta", {"table1", "table2", "table3"}),
        ("repro plan table1 --pro", {"--probe"}),
    ],
)
def test_the_shell_completes_what_is_typed(tmp_path: Path, line: str, candidates: set[str]) -> None:
    file = tmp_path / "candidates"
    variables = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(file)}
    subprocess.run(
        [sys.executable, "-m", "repro"],
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT), "COMP_LINE": line, "COMP_POINT": str(len(line))},
        check=False,
        timeout=60,
    )
    assert candidates <= {text.strip() for text in file.read_text().split("\n")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_for_a_shell_is_printed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, text, _ = output_of(capsys, "completion", shell)
    assert code == 0
    assert "repro" in text


def test_a_latin1_terminal_gets_a_replacement_for_other_signs() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "repro", "list", "table1", "\u2264"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, b"Traceback" in answer.stderr) == (2, False)
    assert b"no row matches" in answer.stderr


@pytest.mark.parametrize("words", [["list"], ["list", "table1", "--json"], ["--version"]])
def test_a_full_disk_for_the_output_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "repro", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    line = "repro: No space left on device; free some space and run the same command again\n"
    assert (answer.returncode, answer.stderr) == (2, line)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["launch", "table1"], "free some space and run the same command again, which resumes ("),
        (["report", "table1"], "free some space and run the same command again\n"),
    ],
)
def test_only_commands_that_train_are_resumed_after_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], advice: str
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a/b")

    monkeypatch.setattr(f"repro.cli.{words[0]}.selection", full)
    code, _, error = output_of(capsys, *words)
    assert code == 2
    assert error.startswith(f"repro: a/b: No space left on device; {advice}")


def test_a_folder_that_cannot_be_written_has_a_next_step(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders = ["--runs", str(tmp_path), "--reports", str(tmp_path / "file" / "x")]
    code, _, error = output_of(capsys, "report", "table1", "deit_tiny/dense", *folders)
    assert code == 2
    assert error.endswith("; correct that, or give another path\n")


def test_the_home_folder_is_expanded_in_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, text, _ = output_of(capsys, "plan", "table1", "deit_tiny/dense", "--runs", "~/my runs", "--json")
    entry, *_ = json.loads(text)
    assert code == 0
    assert entry["record"].startswith(f"{tmp_path}/my runs/table1/")


@pytest.mark.parametrize("words", [["plan", "table1", "--runs", "~nobodyx/r"], ["status", "~nobodyx/r"]])
def test_the_home_folder_of_an_unknown_user_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, text, error = output_of(capsys, *words)
    assert (code, text) == (2, "")
    reason = "no user nobodyx; write the folder in full, or ./~nobodyx/r if that is its name"
    assert error == f"repro: ~nobodyx/r: {reason}\n"


@pytest.mark.parametrize("variable", ["REPRO_CONFIG", "REPRO_PATH"])
def test_the_home_folder_of_an_unknown_user_is_refused_in_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv(variable, "~nobodyx")
    code, _, error = output_of(capsys, "plan", "table1")
    assert (code, error.partition(";")[0]) == (2, "repro: ~nobodyx: no user nobodyx")


def test_a_user_without_a_home_folder_has_no_site_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that is started with a user id of its own."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "REPRO_CONFIG", "NETRC"):
        monkeypatch.delenv(name)
    code, text, _ = output_of(capsys, "plan", "table1", "deit_tiny/dense", "--scale", "smoke")
    assert (code, "1 planned" in text) == (0, True)
    assert key_source() is None
    code, _, error = output_of(capsys, "plan", "table1", "--runs", "~/r")
    assert (code, error.partition(";")[0]) == (2, "repro: ~/r: no home folder (HOME is not set)")


def test_the_site_file_sets_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "repro.yaml").write_text("run.root: /scratch/runs\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRO_CONFIG")
    for words, root in (([], "/scratch/runs"), (["--runs", "here"], "here")):
        _, text, _ = output_of(capsys, "plan", "table1", "deit_tiny/dense", "--json", *words)
        assert json.loads(text)[0]["record"].startswith(f"{root}/table1/")


@pytest.mark.parametrize("command", ["plan", "status", "logs", "cancel", "report"])
def test_commands_that_read_no_images_need_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Rows of two data sets, neither of which has a folder."""
    monkeypatch.chdir(tmp_path)
    rows = ["deit_small/dense"] if command == "logs" else ["deit_small/dense", "timesformer/dense"]
    code, _, error = output_of(capsys, command, "table3", *rows, "--scale", "paper")
    assert "data.root" not in error
    assert code == (2 if command == "logs" else 0), error


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "name", ["a b", "o'brien", "a=b", "(1)", "[1]", "#1", "a&b", "a{b", "a;b", "a!b", "ü", "${x}", "a$HOME", "a|b", '"']
)
def test_make_hands_a_folder_on_as_it_is_typed(tmp_path: Path, name: str) -> None:
    (tmp_path / "paper_tables" / "table1").mkdir(parents=True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for file in ("paper_tables/table1/table.yaml", "requirements.lock", "pyproject.toml", ".venv/.ready"):
        (tmp_path / file).touch()
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    program = tmp_path / ".venv" / "bin" / "repro"
    program.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    program.chmod(0o755)
    answer = subprocess.run(
        ["make", "-s", "-o", ".venv/.ready", "status", f"DATA=/data/{name}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"data.root=/data/{name}" in answer.stdout.splitlines()


@pytest.mark.slow
def test_a_launch_on_an_ascii_terminal_succeeds_in_a_folder_of_other_letters(tmp_path: Path) -> None:
    folder = tmp_path / "\u00fcbung \u4e2d"
    words = ["launch", "table1", "deit_tiny/dense", "--scale", "smoke", "tracker=none"]
    words += ["--runs", str(folder / "runs"), "--reports", str(folder / "reports")]
    answer = subprocess.run(
        [sys.executable, "-m", "repro", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (answer.returncode, b"Traceback" in answer.stderr) == (0, False), answer.stderr
    (log,) = folder.glob("runs/**/attempts/1/stdout")
    assert str(folder) in log.read_text(encoding="utf-8")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_shown_at_once_on_a_terminal_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, text in ((Terminal(), "composing ...\r\x1b[K"), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        with announced("composing"):
            assert stream.getvalue() == text.partition("\r")[0]
        assert stream.getvalue() == text


def test_a_folder_that_is_named_like_a_file_of_weights_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model.pth"
    folder.mkdir()
    code, _, error = output_of(capsys, "eval", str(folder))
    assert (code, error.startswith(f"repro: {folder}: neither the folder of a record nor a row")) == (2, True)

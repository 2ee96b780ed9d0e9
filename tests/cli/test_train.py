"""`repro train`: Hydra's options, sweeps, and launchers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fake_slurm import FakeSlurm

from repro import locations
from repro.cli.main import main
from repro.locations import groups

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["backbone=deit_tiny", "scale=smoke", "tracker=none"]
SLURM = ["launcher=slurm", "launcher.gpus_per_node=0"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locations, "added_config_dirs", [])


def output_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of `repro train`."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return ended.value.code, printed.out, printed.err


def test_help_lists_the_groups_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = output_of(capsys, "--help")
    for group, options in groups().items():
        assert f"{group}: {', '.join(options)}" in text


def test_cfg_prints_the_resolved_config_and_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = output_of(
        capsys, "--cfg", "job", "experiment=svite_longer", "recipe.lr=0.125", "run.root=/a (${x})"
    )
    config = yaml.safe_load(text)
    assert code == 0
    assert (config["recipe"]["lr"], config["recipe"]["epochs"], config["run"]["root"]) == (0.125, 24, "/a (${x})")
    assert config["model"]["embed_dim"] == config["backbone"]["local"]["embed_dim"]
    assert not list(tmp_path.iterdir())
    code, text, _ = output_of(capsys, "--cfg", "all", "seed=3")
    assert code == 0
    config = yaml.safe_load(text)
    assert (config["seed"], config["hydra"]["overrides"]["task"]) == (3, ["seed=3"])
    assert config["run"]["root"] == "runs"


def test_cfg_prints_each_run_of_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = output_of(capsys, "-m", "--cfg", "job", "seed=3,4")
    assert [config["seed"] for config in yaml.safe_load_all(text)] == [3, 4]
    _, text, _ = output_of(capsys, "--multirun", "--cfg", "hydra", "method=svite,omp")
    choices = [config["hydra"]["runtime"]["choices"]["method"] for config in yaml.safe_load_all(text)]
    assert choices == ["svite", "omp"]


def test_info_is_hydras_own_for_each_run(tmp_path: Path) -> None:
    (tmp_path / "my conf" / "method").mkdir(parents=True)
    (tmp_path / "my conf" / "method" / "mine.yaml").write_text("defaults: [svite, _self_]\n")
    own = ["--config-dir", "my conf"]
    answer = subprocess.run(
        [sys.executable, "-m", "repro", "train", "-m", *own, "method=mine,omp", "data.root=/a(b", "--info"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    runs = answer.stdout.split("\n---\n")
    assert ["method: mine" in run for run in runs] == [True, False]
    assert ["method: omp" in run for run in runs] == [False, True]
    assert all(f"file://{tmp_path}/my conf" in run for run in runs)
    assert answer.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir", "nope", "seed=1"], "no such folder of config files"),
        (["hydra.searchpath=3"], "hydra.searchpath=3: not a list"),
        (["-m", "hydra/launcher=submitit_slurm", "seed=1,2"], "runs go to launcher=inline, local or slurm"),
        (["-m", "seed=1,x"], "seed=x: config: seed='x': input should be a valid integer"),
        (["-m", "recipe.lr=("], "recipe.lr=(: not an override"),
        (["-m", "launcher=inline,local"], "all runs of a sweep have one launcher"),
        (["method@foo=svite"], "method@foo=svite: a run has one method; leave out @foo"),
        (["-m", "method@foo=svite,dense"], "method@foo=svite,dense: a run has one method; leave out @foo"),
        (["launcher=slurm"], "launcher=slurm: no sbatch on this machine"),
        (["run.root=/proc/x", *SMOKE], "/proc/x: cannot write there"),
        (["scale=paper", "launcher=local", "data.root=nowhere"], "data.root=nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    code, _, error = output_of(capsys, *words)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_run_on_slurm_is_confirmed_and_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = FakeSlurm(tmp_path / "slurm", monkeypatch)
    code, text, error = output_of(capsys, *SMOKE, *SLURM)
    assert code == 2
    assert "deit_tiny/dense at scale smoke: 1 planned; a launch would start 1" in text
    assert "use --yes to start them" in error
    assert cluster.submissions == 0
    code, text, _ = output_of(capsys, *SMOKE, *SLURM, "--yes")
    assert (code, cluster.queue) == (0, ["1"])
    assert "submitted 1 run in 1 array" in text
    code, _, error = output_of(capsys, *SMOKE, *SLURM, "--yes")
    assert code == 2
    assert "already running (Slurm job 1 is pending)" in error


def test_a_sweep_on_slurm_is_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = FakeSlurm(tmp_path / "slurm", monkeypatch)
    code, _, _ = output_of(capsys, "-m", *SMOKE, *SLURM, "seed=0,1", "--yes")
    assert (code, cluster.queue) == (0, ["1_0", "1_1"])
    assert cluster.asked("array") == ["0-1%2"]
    code, text, _ = output_of(capsys, "-m", *SMOKE, *SLURM, "seed=0,1", "method=dense,omp", "--yes")
    assert (code, cluster.queue) == (0, ["1_0", "1_1", "2", "3"])
    assert cluster.asked("dependency") == ["afterok:1_0", "afterok:1_1"]
    assert "deit_tiny/omp-50 seed=1 method=omp: submitted: runs/by_hand/deit_tiny/omp-50/smoke/seed1-" in text


@pytest.mark.slow
def test_a_sweep_with_own_config_files_trains_on_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /method: svite\nrecipe: {epochs: 3}\n")
    words = ["-m", "--config-dir", "own", "experiment=mine", *SMOKE, "method.sparsity=0.3,0.4", "run.root=my (runs)"]
    code, text, _ = output_of(capsys, *words)
    assert code == 0
    assert text.count(": done, top-1 ") == 2
    records = sorted((tmp_path / "my (runs)" / "by_hand").glob("**/result.json"))
    assert [path.parts[-4] for path in records] == ["svite-30", "svite-40"]

"""scripts/gpu_check: its whole way on a CPU, with nothing installed that it does not need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.cases import Training, case_from_json, to_json
from benchmarks.composed import FILE, METHODS, every_case, tiny
from benchmarks.gpu_check.correctness import HostNoise

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check"
# Whatever this repository depends on and a bare machine with torch, torchvision and timm may lack.
ABSENT = (
    *("pydantic", "pydantic_core", "hydra", "omegaconf", "submitit", "wandb", "pandas", "matplotlib", "sklearn"),
    *("scipy", "rich", "psutil", "yaml", "safetensors", "huggingface_hub", "transformers", "numba"),
)


def gpu_check(*arguments: str, folder: Path, absent: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The script in a process whose interpreter finds none of `absent`."""
    (folder / "sitecustomize.py").write_text(
        f"import sys\nfor name in {absent!r}:\n    sys.modules[name] = None\n", encoding="utf-8"
    )
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
    )


@pytest.mark.slow
def test_every_part_runs_on_torch_and_timm_alone(tmp_path: Path) -> None:
    done = gpu_check("--cpu-dry-run", "--out", str(tmp_path), folder=tmp_path, absent=ABSENT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    result = json.loads((tmp_path / "gpu_dry_run.json").read_text(encoding="utf-8"))
    assert result["hardware"]["device"].startswith("cpu (dry run")
    assert set(result["hardware"]["seconds"]) == {"correctness", "compile", "released", "methods", "time", "sparse"}
    figures = {figure["name"]: figure for figure in result["figures"]}
    for name in METHODS:
        exact = figures[f"{name}, float32: against the reference"]
        assert exact["details"]["losses"] == exact["details"]["reference"], "the same device: the same bits"
        mixed = figures[f"{name}, bfloat16: against the reference"]
        assert mixed["details"]["losses"] != mixed["details"]["reference"]
        assert exact["is_met"] is mixed["is_met"] is True
    for words in (
        "float32, compiled",
        "matrix products",
        "the released style's",
        "over the dense",
        "per MACs saved",
        "exported, times",
    ):
        assert any(words in name for name in figures), words
    assert all(figure["is_met"] is None for name, figure in figures.items() if "step" in name or "saved" in name)
    assert "| figure | target | measured | |" in (tmp_path / "gpu_dry_run.md").read_text(encoding="utf-8")


def test_without_a_gpu_it_says_so_in_a_line(tmp_path: Path) -> None:
    done = gpu_check(folder=tmp_path)
    assert done.returncode == 3
    assert done.stderr == "gpu_check: torch sees no CUDA device here; --cpu-dry-run tries the script itself\n"


@pytest.mark.parametrize(
    ("absent", "says"),
    [
        (("timm",), "has no timm: pure Python, "),
        (("torch",), "has no torch; take the interpreter that has torch"),
        (("torch", "torchvision", "numpy", "PIL", "timm"), "has no torch, torchvision, numpy, pillow, timm; take"),
    ],
)
def test_what_is_missing_is_said_in_a_line(absent: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = gpu_check(folder=tmp_path, absent=absent)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gpu_check: {sys.executable} (Python ")
    assert says in line


def test_parts_that_do_not_go_together_are_said_in_a_line(tmp_path: Path) -> None:
    """timm asks torchvision for what its other torch does not have: an ImportError on the way in."""
    done = gpu_check(folder=tmp_path, absent=("torchvision.ops.misc",))
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gpu_check: torch {torch.__version__.partition('+')[0]}, torchvision ")
    assert "cannot be used together here: import of torchvision.ops.misc halted" in line


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = gpu_check("speed", folder=tmp_path)
    assert done.returncode == 2
    assert "no part speed; there are correctness, compile, released, methods, time, sparse" in done.stderr


def test_a_part_that_breaks_fails_the_check_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.gpu_check import check

    def broken(*_: object) -> object:
        raise RuntimeError("out of memory")
        yield

    monkeypatch.setattr(check.speed, "against_dense", broken)
    code = check.main(["methods", "time", "--cpu-dry-run", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert code == 1
    assert "methods, svite: broke: RuntimeError: out of memory" in printed
    assert "per MACs saved" in printed


def test_every_method_is_checked_and_the_file_is_what_configs_say() -> None:
    assert set(METHODS) == {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")}
    written = json.loads(FILE.read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(every_case())), "python -m benchmarks.composed writes it anew"


@pytest.mark.parametrize("name", ["svite", "s2vite", "spartan_block16", "ia_red2"])
def test_a_case_is_itself_after_json_and_trains(name: str) -> None:
    case = tiny(name)
    again = case_from_json(json.loads(json.dumps(to_json(case))))
    states = []
    for one in (case, again):
        training = Training(one, torch.device("cpu"), batch=4)
        training.update()
        states.append((training.loss(), [part.state_dict() for part in training.state.parts]))
    assert states[0][0] == states[1][0]
    assert str(states[0]) == str(states[1])


def test_noise_from_the_host_is_the_noise_of_the_cpu() -> None:
    def drawn() -> list[torch.Tensor]:
        torch.manual_seed(0)
        return [
            torch.empty(3).bernoulli_(0.5),
            torch.empty(3).exponential_(),
            torch.rand(3),
            torch.rand_like(torch.ones(3)),
            torch.randn(2, 2),
            torch.bernoulli(torch.full((3,), 0.5)),
        ]

    plain = drawn()
    with HostNoise():
        moved = drawn()
    assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True))

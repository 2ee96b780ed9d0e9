"""`repro adopt`: files of released trainers are checked, evaluated, recorded, shown, exported; others are rejected."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import released_files
import torch
from PIL import Image
from report_records import collect
from timm.data import ImageNetInfo
from two_ranks_command import on_two_ranks

from repro.cli.main import main
from repro.config import Config
from repro.config.compose import compose
from repro.config.data_roots import NO_FOLDER
from repro.distributed import World
from repro.evaluation.report import evaluate
from repro.evaluation.sources import from_file
from repro.inference.build import masked_model
from repro.inference.export import load_exported
from repro.inference.shrink import block_sizes
from repro.runs.adopted import read_adopted
from repro.tables.loader import find_row

ORIGIN = "https://example.org/weights"
Write = Callable[[Path, Config], released_files.Weights]


def row_config(name: str, scale: str = "local") -> Config:
    return compose([*find_row(name)[1].overrides_at(scale), *([NO_FOLDER] if scale == "paper" else [])])


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def adopted(root: Path, file: Path, name: str, *words: str, scale: str = "local") -> dict[str, Any]:
    """Adopt a file; return the content of its record."""
    command = ("adopt", file, name, "--scale", scale, "--runs", root, "--origin", ORIGIN, "--workers", "0", *words)
    assert run(*command) == 0
    table, row = find_row(name)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    records = (root / table.name / row.id / "weights").glob(f"{sha256[:8]}*/adopted.json")
    record = max(records, key=lambda path: path.stat().st_mtime_ns)
    contents: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    assert contents["evidence"] == "weights"
    assert {**contents["file"], "key": "", "epoch": None} == {
        **{"name": file.name, "sha256": sha256, "origin": ORIGIN, "key": "", "is_ema": "--ema" in words, "epoch": None}
    }
    return contents


@pytest.mark.parametrize(
    ("name", "write", "key", "epoch"),
    [
        ("deit_small/svite-50", released_files.svite_unstructured, "model", 599),
        ("table3/deit_small/dense", released_files.deit, "model", None),
        ("deit_tiny/dense", released_files.timm_training, "state_dict", 3),
        ("vit_base/spartan-90", lambda path, config: released_files.spartan(path, config, is_finished=True), "", None),
        (
            "vit_base/spartan-90",
            lambda path, config: released_files.spartan(path, config, is_finished=False),
            "model",
            99,
        ),
        ("resnet50/imp-90", lambda path, config: released_files.spartan(path, config, is_finished=True), "", None),
        ("table3/deit_small/ia_red2", released_files.ia_red2, "", None),
    ],
)
def test_every_released_format_becomes_evidence(
    name: str, write: Write, key: str, epoch: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = row_config(name)
    weights = write(tmp_path / "file", config)
    found = adopted(tmp_path / "runs", tmp_path / "file", name)
    assert (found["file"]["key"], found["file"]["epoch"]) == (key, epoch)
    torch.save(weights, tmp_path / "plain.pth")
    expected = evaluate(from_file(tmp_path / "plain.pth", config), World(0, 1, torch.device("cpu")))
    assert found["top1_by_draw_pct"] == [expected["top1_pct"]]
    assert found["evaluation"]["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert found["data"]["images"] == found["data"]["of"]
    assert "best epoch" in found["notes"][0]
    assert f"the weights of {'the last epoch' if epoch is None else f'epoch {epoch + 1}'}:" in found["notes"][0]
    masked = found["evaluation"]["model"]["masked"]
    assert bool(masked) == (epoch == 99)  # only an unfinished training with Spartan has masks next to its weights
    shown = f"  weights: multiplied by the file's {len(masked)} masks (Spartan): {', '.join(masked[:3])} and"
    assert (shown in capsys.readouterr().out) == bool(masked)


def test_a_structured_checkpoint_is_checked_reported_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Removed heads and neurons output constants, because their biases are not masked."""
    root, name = tmp_path / "runs", "deit_small/s2vite-40"
    config = row_config(name)
    weights = released_files.svite_structured(tmp_path / "checkpoint.pth", config)
    found = adopted(root, tmp_path / "checkpoint.pth", name)
    depth, neurons = config.model.token_blocks, int(0.6 * config.model.units["neurons"])
    assert [(check["what"], check["planned"]) for check in found["checks"]] == [
        ("heads", str(4 * depth)),
        ("neurons", str(neurons * depth)),
    ]
    table, row = find_row(name)
    frame = collect(table, [row], "local", [0], root).iloc[0]
    assert (frame["state"], frame["weights_files"], frame["weights_verdicts"]) == ("missing", 1, "other data")
    assert frame["weights_top1_by_file_pct"].endswith(f"={found['top1_by_draw_pct'][0]:.10g}")
    assert (frame["weights_origins"], frame["highest_evidence"]) == (ORIGIN, "counted")
    (folder,) = (root / "table1" / name / "weights").iterdir()
    assert run("export", folder, "--out", tmp_path / "out", "--kernels", "dense") == 0
    exported = load_exported(tmp_path / "out")
    assert set(block_sizes(exported).heads) == {4}
    assert max(block_sizes(exported).neurons) < config.model.units["neurons"]
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(exported(images), masked_model(config, weights)(images), rtol=0, atol=1e-5)
    capsys.readouterr()
    assert run("eval", folder, "--weights", "best") == 0, "adopted weights have no other epoch"
    assert f"top-1 {found['top1_by_draw_pct'][0]:.2f} %" in capsys.readouterr().out
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert run("eval", folder) == 2
    assert re.search(r"weights.safetensors: damaged \(.*\); adopt the weights again\n$", capsys.readouterr().err)


def test_two_ranks_write_the_record_that_one_writes(tmp_path: Path) -> None:
    file, name = tmp_path / "weights.pth", "table3/deit_small/ia_red2"
    released_files.ia_red2(file, row_config(name))
    alone = adopted(tmp_path / "one", file, name)
    own = ["--scale", "local", "--runs", tmp_path / "two", "--origin", ORIGIN, "--workers", "0"]
    assert on_two_ranks("adopt", file, name, *own).count("top-1") == 1, "only the first rank prints"
    (record,) = read_adopted(tmp_path / "two", *name.split("/", 1))
    assert record.evaluation["setting"]["ranks"] == 2
    assert list(record.top1_by_draw_pct) == alone["top1_by_draw_pct"]
    assert record.evaluation["loss"] == pytest.approx(alone["evaluation"]["loss"], rel=1e-6)


def test_token_selection_is_evaluated_without_noise_or_as_released(tmp_path: Path) -> None:
    file, name = tmp_path / "plus.pth", "deit_small/svite_plus-5-50"
    released_files.svite_unstructured(file, row_config(name), gumbel=True)
    (note,) = [note for note in adopted(tmp_path / "a", file, name)["notes"] if "selection" in note]
    assert note == (
        "evaluated with method.tokens.selection=gather; add method.tokens.selection=as_released to evaluate as the "
        "released code does"
    )
    as_released = "method.tokens.selection=as_released"
    found = adopted(tmp_path / "b", file, name, as_released, "--draws", "3")
    assert len(found["top1_by_draw_pct"]) == 3
    assert any("a mean over 3 draws" in note for note in found["notes"])
    assert found["overrides"] == [as_released]
    (record,) = read_adopted(tmp_path / "b", "table1", name)
    assert record.top1_pct == pytest.approx(sum(found["top1_by_draw_pct"]) / 3)


def test_evaluations_of_one_file_stand_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default one, that of the released code, and that of the moving average."""
    file, name = tmp_path / "plus.pth", "deit_small/svite_plus-5-50"
    released_files.svite_unstructured(file, row_config(name), gumbel=True)
    evaluations: tuple[tuple[str, ...], ...] = ((), ("method.tokens.selection=as_released", "--draws", "2"), ("--ema",))
    found = [adopted(tmp_path / "runs", file, name, *words) for words in evaluations]
    assert "replaces an earlier" not in capsys.readouterr().out
    records = read_adopted(tmp_path / "runs", "table1", name)
    assert sorted(one.top1_by_draw_pct for one in records) == sorted(tuple(one["top1_by_draw_pct"]) for one in found)
    again = adopted(tmp_path / "runs", file, name)
    assert "  replaces an earlier evaluation of this file" in capsys.readouterr().out
    assert again["top1_by_draw_pct"] == found[0]["top1_by_draw_pct"]
    assert len(read_adopted(tmp_path / "runs", "table1", name)) == 3


def test_the_row_of_a_finding_is_shown_by_the_printed_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights whose masks reach only the patch embedding are evidence for the finding about the first public code."""
    monkeypatch.chdir(tmp_path)
    name = "deit_small/svite_plus-5-50-masks_as_released"
    released_files.svite_unstructured(tmp_path / "bug.pth", row_config(name), gumbel=True, masked="patch_embed")
    adopted(tmp_path / "runs", tmp_path / "bug.pth", name)
    (command,) = re.findall(r"repro (report .*) shows it", capsys.readouterr().out)
    assert command == f"report table1 {name} --scale local"
    assert run(*command.split()) == 0
    sha256 = hashlib.sha256((tmp_path / "bug.pth").read_bytes()).hexdigest()
    note = (tmp_path / "reports/table1/local/table1.md").read_text(encoding="utf-8").partition("Finding: ")[2]
    assert f"bug.pth, sha256 {sha256}" in note.partition("\n## ")[0]


@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        ("svite.pth", "deit_small/svite-30", "% (planned 30.00 %, tolerance 0.5 points)"),
        ("svite.pth", "deit_small/svite-30", "it has those of deit_small/svite-50, deit_small/omp-50"),
        ("svite.pth", "deit_small/s2vite-40", "heads 18 of 18 (planned 12, tolerance exact)"),
        # Masks have 50 %, but the first public code applied them only to the patch embedding: the weights decide.
        ("bug.pth", "deit_small/svite_plus-5-50", "(planned 50.00 %, tolerance 0.5 points)"),
        ("svite.pth", "deit_tiny/svite-30", "expected are those of table1 deit_tiny/svite-30"),
        ("svite.pth", "deit_small/svite-55", "no such row; nearest: deit_small/svite-50"),
        ("none.pth", "deit_small/svite-50", "no such file"),
        ("svite.pth", "deit_small/ia_red2-segmentation", "adopt them for deit_small/ia_red2"),
    ],
)
def test_what_is_not_the_rows_is_refused(
    file: str, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released_files.svite_unstructured(tmp_path / "svite.pth", row_config("deit_small/svite-50"))
    plus = row_config("deit_small/svite_plus-5-50")
    released_files.svite_unstructured(tmp_path / "bug.pth", plus, gumbel=True, masked="patch_embed")
    assert run("adopt", tmp_path / file, name, "--scale", "local", "--origin", ORIGIN, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_full_deit_tiny_of_svite(tmp_path: Path) -> None:
    """The published size, on images in ImageNet's layout; a subset of them is no evidence about ImageNet."""
    name = "deit_tiny/svite-30"
    for number, wnid in enumerate(ImageNetInfo().label_names()):
        folder = tmp_path / "imagenet" / "val" / wnid
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 24), (number % 256, number // 4, 9)).save(folder / f"ILSVRC2012_val_{number:08}.JPEG")
    released_files.svite_unstructured(tmp_path / "checkpoint.pth", row_config(name, "paper"))
    data = (f"data.root='{tmp_path / 'imagenet'}'", "data.limit_test=2")
    found = adopted(tmp_path / "runs", tmp_path / "checkpoint.pth", name, *data, scale="paper")
    total, layer = found["checks"]
    assert (total["what"], total["planned"], total["tolerance"]) == ("zeros in all layers", "30.00 %", "0.5 points")
    assert "exceeded" not in layer["tolerance"], "drawn with SViTE's densities"
    assert found["data"]["is_imagenet_validation"] is False
    frame = collect(*_row(name), "local", [0], tmp_path / "runs").iloc[0]
    assert (frame["weights_verdicts"], frame["highest_evidence"]) == ("other data", "counted")
    (record,) = (tmp_path / "runs/table1" / name / "weights").glob("*/adopted.json")
    assert str(tmp_path) not in record.read_text(encoding="utf-8"), "where the file lay is private to a machine"


def _row(name: str) -> tuple[Any, list[Any]]:
    table, row = find_row(name)
    return table, [row]

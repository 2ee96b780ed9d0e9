"""`repro eval`: the accuracy measured in training, from any source of weights, on one or two ranks."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_runs import SHORT, VIT, config_of, trainer
from timm.data import ImageNetInfo, create_transform
from two_ranks_command import on_two_ranks

from repro.cli.main import main
from repro.config.compose import compose
from repro.errors import UserError
from repro.evaluation.finished_model import finished_weights
from repro.evaluation.weights.state_dict import weights_digest
from repro.files import write_json
from repro.launch.plan import plan
from repro.models.backbone import build_model
from repro.runs.record import Record
from repro.tables.loader import load_table
from repro.training.attempt import execute
from repro.training.weights_file import write_weights

ROOT = Path(__file__).resolve().parents[2]
CHANGES = [text for text in (*VIT, *SHORT) if not text.startswith(("backbone=", "scale="))]
SMALL = ("backbone=deit_tiny", "model.embed_dim=12", "model.depth=2", "model.weight_init=''")


def evaluated(words: Sequence[str | Path], file: Path) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["eval", *map(str, words), "--json", str(file)])
    assert ended.value.code == 0
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def refused(words: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["eval", *map(str, words)])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A small run of a row that is not published: fewer heads, neurons and tokens."""
    table = load_table("table1")
    root = tmp_path_factory.mktemp("finished") / "runs"
    (run,) = plan(table, table.select(["deit_small/s2vite_plus-10-40"]), "smoke", [0], root, CHANGES)
    run.create()
    assert execute(run.record.path, log=lambda _: None) == 0
    return root, run.record


def test_record_row_export_and_file_have_the_accuracy_of_the_training(
    finished: tuple[Path, Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, record = finished
    result = record.result()
    assert result is not None
    weights = finished_weights(record, "last")
    with pytest.raises(SystemExit):
        main(["export", str(record.path), "--kernels", "dense", "--out", str(tmp_path / "out")])
    torch.save({"model": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "deit.pth")
    save_file({name: value.clone() for name, value in weights.items()}, tmp_path / "own.safetensors")
    write_weights(tmp_path / "packed.safetensors", weights)
    row = ["deit_small/s2vite_plus-10-40", *CHANGES, "--scale", "smoke", "--runs", root]
    model = ["backbone=deit_small", "method=s2vite_plus", "method.sparsity=0.4", "method.data_sparsity=0.1"]
    same = [*model, *CHANGES, "--scale", "smoke"]
    latest = max((record.checkpoint_dir).glob("update-*.pt"))
    files = [latest, *(tmp_path / name for name in ("deit.pth", "own.safetensors", "packed.safetensors"))]
    capsys.readouterr()
    reports = [
        evaluated(words, tmp_path / "result.json")
        for words in ([record.path], row, [tmp_path / "out"], *([file, *same] for file in files))
    ]
    output = capsys.readouterr().out
    assert output.count("on all 64 test images of digits (10 classes); not ImageNet") == 0
    assert output.count("on 64 of the 360 test images of digits (10 classes); not ImageNet") == len(reports)
    assert [report["model"]["kind"] for report in reports] == ["record", "record", "export", *["file"] * len(files)]
    assert {report["top1_pct"] for report in reports} == {result["top1_last_pct"]}
    assert {report["top5_pct"] for report in reports} == {result["top5_last_pct"]}
    assert reports[0]["loss"] == result["loss_last"]
    hashes = [report["model"]["weights_sha256"] for report in reports]
    assert len({*hashes[:2], *hashes[3:]}) == 1, "the same weights in every file"
    assert hashes[2] != hashes[0], "an export has fewer weights"
    assert reports[0]["data"] | {"fingerprint": ""} == {
        **{"name": "digits", "split": "test", "images": 64, "of": 360, "classes": 10, "skipped": 0, "unreadable": 0},
        **{"fingerprint": "", "fingerprint_of": "training and test images", "is_imagenet_validation": False},
        "are_training_classes": None,
    }
    assert reports[0]["provenance"]["versions"]["torch"] == version("torch")
    best = evaluated([record.path, "--weights", "best"], tmp_path / "best.json")
    assert best["top1_pct"] == result["top1_best_pct"]
    digest = hashlib.sha256((tmp_path / "deit.pth").read_bytes()).hexdigest()
    assert reports[4]["model"]["file_sha256"] == digest


@pytest.mark.parametrize("name", ["random dropping", "svite_plus as released"])
def test_models_that_sample_use_the_stream_of_the_training(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    record = Record(tmp_path / "a" / "b")
    if config.method.starts_from is not None:
        origin = Record(tmp_path / "dense")
        origin.create(compose([*VIT, *SHORT, "method=dense"]), "by_hand", "dense")
        assert execute(origin.path, log=lambda _: None) == 0
        record.create(config, "by_hand", "row", origin.path)
    else:
        record.create(config, "by_hand", "row")
    assert execute(record.path, log=lambda _: None) == 0
    report = evaluated([record.path], tmp_path / "result.json")
    result = record.result()
    assert result is not None
    assert (report["top1_pct"], report["loss"]) == (result["top1_last_pct"], result["loss_last"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 validation images of three classes, real JPEG files of various sizes; no training images."""
    root = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(13):
        folder = root / "val" / ("ash", "beech", "cedar")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((40 + 3 * number, 60 - 2 * number)).save(folder / f"{number}.jpg", quality=95)
    return root


def _words(photos: Path, *more: str) -> list[str]:
    small = ["model.image_size=16", "model.patch_size=4", "model.in_chans=3", "model.num_classes=3"]
    return [*SMALL, *small, "data=imagefolder", f"data.root='{photos}'", "data.workers=0", *more]


def _weights(folder: Path, words: Sequence[str]) -> Path:
    model = build_model(compose(["scale=local", *words]).model, 0.0, 3)
    weights = {name: 4 * value for name, value in model.state_dict().items()}
    torch.save(weights, folder / "weights.pt")
    return folder / "weights.pt"


def _checkpoint(folder: Path, weights: Path, ema_keys: Sequence[str]) -> Path:
    """Write a training checkpoint with arguments, the weights in a file, and half their values as the average."""
    state = torch.load(weights, weights_only=True)
    average = {name: value / 2 for name, value in state.items()}
    content = {"model": state, "args": argparse.Namespace(lr=0.1), **dict.fromkeys(ema_keys, average)}
    torch.save(content, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def test_the_result_names_the_weights_that_were_taken(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*_words(photos), "--scale", "local"]
    weights = _weights(tmp_path, _words(photos))
    expected = evaluated([weights, *words], tmp_path / "r.json")
    file = _checkpoint(tmp_path, weights, ["model_ema"])
    capsys.readouterr()
    raw = evaluated([file, *words], tmp_path / "r.json")
    assert "weights: model; with --ema the EMA in model_ema" in capsys.readouterr().out
    average = evaluated([file, *words, "--ema"], tmp_path / "r.json")
    assert "weights: the EMA in model_ema; without --ema those in model" in capsys.readouterr().out
    assert (raw["loss"], raw["model"]["weights_sha256"]) == (expected["loss"], expected["model"]["weights_sha256"])
    assert average["loss"] != raw["loss"]
    taken = [[report["model"][key] for key in ("weights_key", "is_ema", "also_in_file")] for report in (raw, average)]
    assert taken == [["model", False, "model_ema"], ["model_ema", True, "model"]]


def test_an_accuracy_at_chance_is_called_so(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A constant prediction is correct for 5 of the 13 images, the share of the most frequent class."""
    words = _words(photos)
    file = _weights(tmp_path, words)
    weights = torch.load(file, weights_only=True)
    weights["head.weight"].zero_()
    weights["head.bias"].copy_(torch.tensor([1.0, 0.0, 0.0]))
    torch.save(weights, file)
    report = evaluated([file, *words, "--scale", "local"], tmp_path / "r.json")
    assert report["top1_pct"] == report["chance_pct"] == pytest.approx(100 * 5 / 13)
    assert report["is_at_chance"]
    assert "at chance: a constant answer has 38.46 %" in capsys.readouterr().out


def test_values_that_are_not_finite_end_the_evaluation(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(photos)
    json_file = tmp_path / "r.json"
    messages = {float("nan"): "weights are NaN or infinite: head.bias", 3e38: "puts out NaN or infinity"}
    for value, message in messages.items():
        file = _weights(tmp_path, words)
        weights = torch.load(file, weights_only=True)
        weights["head.bias"][0] = value
        weights["head.weight"][0] = 3e38
        torch.save(weights, file)
        assert message in refused([file, *words, "--scale", "local", "--json", json_file], capsys)
        assert not json_file.exists()


def folder_of(root: Path, classes: Sequence[str]) -> Path:
    draw = np.random.default_rng(0)
    for split, name, number in itertools.product(("train", "val"), classes, range(4)):
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    return root


def test_a_folder_with_other_classes_than_the_training_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = folder_of(tmp_path / "trees", ("ash", "beech", "cedar"))
    moved, cars = (
        folder_of(tmp_path / "moved", ("ash", "beech", "cedar")),
        folder_of(tmp_path / "cars", ("audi", "bmw", "cedar")),
    )
    sizes = ["model.image_size=16", "model.patch_size=4", "model.in_chans=3", "model.num_classes=3"]
    limits = ["data.limit_train=null", "data.limit_test=null", "recipe.epochs=2", "recipe.global_batch=6"]
    small = [word for word in (*VIT, *SHORT) if not word.startswith(("data.limit", "recipe."))]
    words = [
        *small,
        *sizes,
        *limits,
        "recipe.micro_batch=6",
        "data=imagefolder",
        f"data.root={trees}",
        "data.workers=0",
    ]
    record = Record(tmp_path / "run")
    record.create(compose([*words, "data.images_per_epoch=12"]), "by_hand", "row")
    assert execute(record.path, log=lambda _: None) == 0
    with pytest.raises(SystemExit):
        main(["export", str(record.path), "--kernels", "dense", "--out", str(tmp_path / "out")])
    for model in (record.path, tmp_path / "out"):
        same = evaluated([model, f"data.root={moved}"], tmp_path / "r.json")
        assert same["data"]["are_training_classes"]
        message = refused([model, f"data.root={cars}"], capsys)
        assert "not the classes that the model was trained on (without ash, beech, with audi, bmw)" in message
    provenance = record.provenance()
    del provenance["data_classes"]  # as in the records of earlier versions
    write_json(record.path / "provenance.json", provenance)
    capsys.readouterr()
    assert evaluated([record.path, f"data.root={cars}"], tmp_path / "r.json")["data"]["are_training_classes"] is False
    assert "the classes that the model was trained on are unknown" in capsys.readouterr().out


def test_each_image_of_a_folder_is_counted_once(photos: Path, tmp_path: Path) -> None:
    words = _words(photos)
    file = _weights(tmp_path, words)
    config = compose(["scale=local", *words])
    model = build_model(config.model, 0.0, 0)
    model.load_state_dict(torch.load(file, weights_only=True))
    transform = create_transform(
        (3, 16, 16), interpolation="bicubic", mean=config.data.mean, std=config.data.std, crop_pct=1.0
    )
    right, loss = 0, 0.0
    with torch.inference_mode():
        for path in sorted((photos / "val").glob("*/*.jpg")):
            label = ("ash", "beech", "cedar").index(path.parent.name)
            logits = model.eval()(transform(Image.open(path))[None])
            right += int(logits.argmax()) == label
            loss += float(torch.nn.functional.cross_entropy(logits, torch.tensor([label])))
    reports = [
        evaluated([file, *words, "--scale", "local", "--batch", str(batch)], tmp_path / "r.json")
        for batch in (1, 4, 13, 50)
    ]
    assert {report["data"]["images"] for report in reports} == {13}
    assert {report["top1_pct"] for report in reports} == {100 * right / 13}
    assert {report["top5_pct"] for report in reports} == {100.0}
    assert 0 < right < 13
    for report in reports:
        assert report["loss"] == pytest.approx(loss / 13, rel=1e-5)
    assert reports[0]["data"]["fingerprint_of"] == "test images"
    assert {report["data"]["fingerprint"] for report in reports} == {reports[0]["data"]["fingerprint"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_left_out(
    photos: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [shutil.copytree(photos, tmp_path / name) for name in ("damaged", "removed")]
    (folders[0] / "val/beech/4.jpg").write_bytes(b"")
    (folders[1] / "val/beech/4.jpg").unlink()
    file = _weights(tmp_path, _words(photos))
    words = ["--scale", "local", "--batch", "5", "--workers", str(workers)]
    damaged, removed = (evaluated([file, *_words(folder), *words], tmp_path / "r.json") for folder in folders)
    assert (damaged["data"]["images"], damaged["data"]["of"], damaged["data"]["unreadable"]) == (12, 13, 1)
    assert (removed["data"]["images"], removed["data"]["of"], removed["data"]["unreadable"]) == (12, 12, 0)
    assert damaged["top1_pct"] == removed["top1_pct"]
    assert damaged["loss"] == pytest.approx(removed["loss"], rel=1e-6)
    shown = capsys.readouterr().out
    assert " (1 unreadable file left out)\n  on 12 of the 13 test images of imagefolder" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [((), 1), (("data.workers=2",), 2), (("--workers", "2"), 2), (("data.workers=0",), 0)],
)
def test_workers_are_limited_by_cores_unless_given(
    words: tuple[str, ...], expected: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [word for word in _words(photos) if not word.startswith("data.workers=")]  # default of the data: 4
    file = _weights(tmp_path, own)
    monkeypatch.setattr("repro.cores.cores", lambda: 1)
    report = evaluated([file, *own, "--scale", "local", *words], tmp_path / "r.json")
    assert report["setting"]["workers"] == expected
    assert report["data"]["images"] == 13


@pytest.mark.parametrize("limit", [13, 1])
def test_two_ranks_give_what_one_gives(photos: Path, tmp_path: Path, limit: int) -> None:
    """At batch 4, two ranks get 7 and 6 of 13 images, with last batches of 3 and 2. With one image, a rank has none."""
    words = _words(photos, f"data.limit_test={limit}")
    file = _weights(tmp_path, words)
    command = [file, *words, "--scale", "local", "--batch", "4"]
    alone = evaluated([*command, "--device", "cpu"], tmp_path / "one.json")
    printed = on_two_ranks("eval", *command, "--json", tmp_path / "two.json")
    assert printed.count("top-1") == 1, "only the first rank prints"
    both = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))
    assert both["setting"]["ranks"] == 2
    assert both["data"] == alone["data"]
    assert both["data"]["images"] == limit
    assert (both["top1_pct"], both["top5_pct"]) == (alone["top1_pct"], alone["top5_pct"])
    assert both["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert both["model"] == alone["model"]


def test_pretrained_weights_come_from_the_cache_with_their_own_normalisation(tmp_path: Path) -> None:
    """A hand-made hub cache in the layout of the hub client; no network."""
    config = compose(["backbone=deit_tiny", "scale=paper", "data.root=x"])
    model = build_model(config.model, 0.0, 7)
    with torch.no_grad():
        model.get_parameter("head.weight").mul_(50)
    snapshot = tmp_path / "hub" / "models--timm--deit_tiny_patch16_224.fb_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    draw = np.random.default_rng(0)
    for number, wnid in enumerate(ImageNetInfo().label_names()):
        folder = tmp_path / "imagenet" / "val" / wnid
        folder.mkdir(parents=True)
        if number < 3:
            picture = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((320, 240))
            picture.save(tmp_path / f"{number}.jpg")
        (folder / "a.JPEG").hardlink_to(tmp_path / f"{number % 3}.jpg")
    command = ["eval", "--pretrained", "backbone=deit_tiny", f"data.root='{tmp_path / 'imagenet'}'"]
    few = ["data.limit_test=3", "--workers", "0", "--device", "cpu", "--json", str(tmp_path / "r.json")]
    where = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **where, "PYTHONPATH": str(ROOT)}

    def run(*words: str, **others: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "repro", *command, *words],
            env={**environment, **others},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = run(*few)
    assert done.returncode == 0, done.stderr
    assert "on 3 of the 1,000 test images of imagenet (1000 classes); a part of ImageNet-1k's" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["model"]["timm_name"] == "deit_tiny_patch16_224.fb_in1k"
    assert report["model"]["weights_sha256"] == weights_digest(model.state_dict())
    # The crop is that in timm's config of these weights, not the recipe's 0.875.
    assert report["transform"] == {
        **{"image_size": 224, "crop_pct": 0.9, "interpolation": "bicubic"},
        **{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    assert report["data"]["is_imagenet_validation"] is False
    assert run(*few, "data.mean=[0.5,0.5,0.5]").returncode == 0
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["transform"]["mean"] == [0.5, 0.5, 0.5]
    nowhere = run(*few, HF_HUB_CACHE=str(tmp_path / "empty"))
    assert nowhere.returncode == 2
    last = nowhere.stderr.strip().splitlines()[-1]
    assert last.startswith("repro: --pretrained backbone=deit_tiny: timm cannot load the weights")
    assert "download them to timm's cache" in last


def test_errors_are_one_line(
    photos: Path, finished: tuple[Path, Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(photos)
    file = _weights(tmp_path, words)
    local = ["--scale", "local"]
    assert "one record's folder, row" in refused([], capsys)
    assert "--pretrained: choose one" in refused([file, "--pretrained"], capsys)
    assert "weights of which model? set backbone=" in refused([file], capsys)
    assert "no such file" in refused([tmp_path / "no.pth", *words], capsys)
    other = refused([file, *words, "model.embed_dim=24", *local], capsys)
    assert "not the weights of this model: cls_token 1x1x12 instead of 1x1x24" in other
    assert "without blocks.2." in refused([file, *words, "model.depth=3", *local], capsys)
    (tmp_path / "torn.safetensors").write_bytes(b"no header")
    assert "not a file of weights" in refused([tmp_path / "torn.safetensors", *words, *local], capsys)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    assert "no weights found" in refused([tmp_path / "empty.pt", *words, *local], capsys)
    assert "no EMA" in refused([_checkpoint(tmp_path, file, ()), *words, *local, "--ema"], capsys)
    assert "--ema: for a file of weights only" in refused([finished[1].path, "--ema"], capsys)
    assert "timm has no such backbone" in refused(["--pretrained", "backbone=timesformer_base", "data=shapes"], capsys)
    assert "published at its paper size" in refused(["--pretrained", "backbone=deit_tiny", *local], capsys)
    assert "published weights are dense" in refused(
        ["--pretrained", "backbone=deit_tiny", "method=svite", "data.root=x"], capsys
    )
    assert "data.root" in refused(["--pretrained", "backbone=deit_tiny"], capsys)
    five = [word if "classes" not in word else "model.num_classes=5" for word in words]
    other_head = refused([_weights(tmp_path, five), *five, *local], capsys)
    assert "data=imagefolder has 3 classes, the model 5" in other_head
    with pytest.raises(SystemExit):
        main(["export", str(finished[1].path), "--kernels", "dense", "--out", str(tmp_path / "out")])
    capsys.readouterr()
    assert "its model is fixed; leave out backbone=deit_tiny" in refused(
        [tmp_path / "out", "backbone=deit_tiny"], capsys
    )
    assert "at least 1" in refused([file, *words, "--batch", "0"], capsys)


def test_the_training_loop_and_the_command_measure_the_same_accuracy(tmp_path: Path) -> None:
    config = config_of("dense")
    run = trainer(config, tmp_path / "run")
    result = run.run()
    torch.save(run.state.model.state_dict(), tmp_path / "weights.pt")
    words = [word for word in (*VIT, *SHORT) if not word.startswith("scale=")]
    report = evaluated([tmp_path / "weights.pt", *words, "--scale", "smoke"], tmp_path / "r.json")
    assert report["top1_pct"] == result["top1_last_pct"]


def test_ranks_agree_on_the_device_before_one_without_a_gpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rank that stopped before it had joined the others would leave them waiting."""
    asked = []

    def join(device: str, wants_gpus: bool = False, option: str = "") -> None:
        asked.append((device, option))
        raise UserError("joined")

    monkeypatch.setattr("repro.distributed.join_world", join)
    assert refused(["deit_tiny/dense", "--device", "cuda"], capsys) == "repro: joined\n"
    assert asked == [("cuda", "--device ")]

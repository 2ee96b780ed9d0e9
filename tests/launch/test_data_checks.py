"""A result belongs to the data that it was trained on: other data are refused before anything starts."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from repro.config.compose import compose
from repro.config.overrides import without_method
from repro.data.data_sets import DATA_SETS
from repro.data.preflight import check_fits
from repro.data.splits import load_splits
from repro.errors import UserError
from repro.evaluation.extract import extract
from repro.launch.data_checks import check_data
from repro.launch.launch import LaunchOptions, launch
from repro.launch.plan import PlannedRun
from repro.launch.single_run import planned_run, train
from repro.runs.record import all_records
from repro.training.inputs import load_inputs


def write_images(root: Path, classes: tuple[str, ...], images: int, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    for split in ("train", "val"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def overrides(root: Path, *others: str) -> list[str]:
    return [
        *("backbone=deit_tiny", "scale=smoke", "tracker=none", "data=imagefolder", "data.workers=0"),
        *("data.limit_train=null", "data.limit_test=null", "model.in_chans=3", "model.num_classes=3"),
        *("recipe.global_batch=6", "recipe.micro_batch=6", f"run.root={root / 'runs'}", *others),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of dogs and of cars, and a finished run on the dogs."""
    folder = tmp_path_factory.mktemp("data")
    write_images(folder / "dogs", ("beagle", "boxer", "collie"), 6, seed=0)
    write_images(folder / "cars", ("audi", "bmw", "fiat"), 6, seed=1)
    threads = torch.get_num_threads()
    assert train(overrides(folder, f"data.root={folder / 'dogs'}"), Console(file=io.StringIO())) == 0
    torch.set_num_threads(threads)
    return folder


def planned(folder: Path, data: str, *others: str) -> PlannedRun:
    words = overrides(folder, f"data.root={folder / data}", *others)
    return planned_run(compose(words), without_method(words))


def refusal(folder: Path, data: str, *others: str) -> str:
    with pytest.raises(UserError) as caught:
        train(overrides(folder, f"data.root={folder / data}", *others), Console(file=io.StringIO()))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_result_of_other_data_is_refused(folder: Path) -> None:
    run = planned(folder, "dogs")
    fingerprint = run.record.trained_on()
    assert refusal(folder, "cars") == (
        f"{run.record.path}: was trained on other data (fingerprint {fingerprint}, then in {folder / 'dogs'}) than "
        f"those in data.root={folder / 'cars'}; restore the data, set data.root to those of "
        "the training, or choose another runs folder"
    )
    assert refusal(folder, "nowhere").startswith(f"data.root={folder / 'nowhere'}: no such folder")


def test_a_run_has_the_environment_of_its_launch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork server, which the fixture's run has started, keeps the environment of its own start."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = overrides(tmp_path, f"data.root={folder / 'dogs'}")
    assert train(words, Console(file=io.StringIO())) == 0
    assert list((tmp_path / "cache/repro").glob("files-of-*"))


def test_one_changed_image_makes_other_data(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "dogs", tmp_path / "dogs")
    check_data([planned(folder, str(copy))])
    shutil.copy(copy / "train/collie/0.png", copy / "train/collie/9.png")
    assert "(new: train/collie/9.png); restore the data, set data.root to those of the tr" in refusal(folder, str(copy))
    (copy / "train/collie/9.png").unlink()
    (copy / "val/boxer/1.png").write_bytes((copy / "val/boxer/1.png").read_bytes()[:-9])  # cut
    (copy / "train/beagle/2.png").unlink()
    assert "(missing: train/beagle/2.png; changed: val/boxer/1.png); restore" in refusal(folder, str(copy))


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("splits", [("train", "val"), ("train",)])
def test_a_class_folder_that_is_gone_does_not_start_another_run(
    folder: Path, tmp_path: Path, is_finished: bool, splits: tuple[str, ...]
) -> None:
    copy = shutil.copytree(folder / "dogs", tmp_path / "dogs")
    run = planned(folder, str(copy))
    result = run.record.path / "result.json"
    for split in splits:
        shutil.rmtree(copy / split / "collie")
    if not is_finished:
        result.rename(folder / "result.json")
    try:
        text = refusal(folder, str(copy))
    finally:
        if not is_finished:
            (folder / "result.json").rename(result)
    missing = "missing: train/collie/0.png, train/collie/1.png, train/collie/2.png and "
    assert f"{missing}{6 * len(splits) - 3} more); restore the data" in text
    assert "model.num_classes" not in text


@pytest.mark.parametrize("image", ["train/collie/0.png", "val/boxer/3.png"])
def test_a_finished_run_may_lose_as_many_images_as_an_unfinished_one(folder: Path, tmp_path: Path, image: str) -> None:
    copy = shutil.copytree(folder / "dogs", tmp_path / "dogs")
    (copy / image).write_bytes(b"cut")
    check_data([planned(folder, str(copy))])
    (copy / image).unlink()
    check_data([planned(folder, str(copy))])
    assert train(overrides(folder, f"data.root={copy}"), Console(file=io.StringIO())) == 0
    second = copy / image.replace(".png", "").rpartition("/")[0] / "5.png"
    second.unlink()
    assert f"(missing: {image}, {second.relative_to(copy)}); restore" in refusal(folder, str(copy))


def test_other_images_of_the_same_names_and_sizes_are_other_data(folder: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):  # bitmaps, whose size does not depend on what they show
        for path in write_images(tmp_path / name, ("beagle", "boxer", "collie"), 6, seed).rglob("*.png"):
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()
    words = overrides(tmp_path)
    assert train([*words, f"data.root={tmp_path / 'a'}"], Console(file=io.StringIO())) == 0
    with pytest.raises(UserError, match=r"was trained on other data .*\(files of the same names and sizes with other"):
        train([*words, f"data.root={tmp_path / 'b'}"], Console(file=io.StringIO()))


def test_the_same_data_show_the_result(folder: Path) -> None:
    for name in ("dogs", "moved, dogs"):  # the name of a folder is not part of the data
        (folder / "dogs").rename(folder / name)
        try:
            out = io.StringIO()
            quoted = overrides(folder, f"data.root='{folder / name}'")
            assert train(quoted, Console(file=out)) == 0
            assert "top1_best_pct" in out.getvalue()
        finally:
            (folder / name).rename(folder / "dogs")


def test_data_that_were_removed_after_the_training_show_the_result(folder: Path) -> None:
    (folder / "dogs").rename(folder / "unmounted")
    try:
        check_data([planned(folder, "dogs")])
    finally:
        (folder / "unmounted").rename(folder / "dogs")


def test_a_launch_refuses_the_result_of_other_data(folder: Path) -> None:
    options = LaunchOptions(retry=False, yes=True, max_attempts=5, root=folder / "runs")
    assert launch("dogs", [planned(folder, "dogs")], options, Console(file=io.StringIO())).failed == []
    with pytest.raises(UserError, match="was trained on other data"):
        launch("cars", [planned(folder, "cars")], options, Console(file=io.StringIO()))


def test_a_method_does_not_start_from_weights_of_other_data(folder: Path) -> None:
    method = ("method=omp", "method.sparsity=0.5")
    assert "was trained on other data" in refusal(folder, "cars", *method)
    assert [record.about()["row"] for record in all_records(folder / "runs")] == ["deit_tiny/dense"]
    # A job on another machine compares them again.
    run = planned(folder, "cars", *method)
    run.create()
    try:
        with pytest.raises(UserError, match=r"starts from .*, which was trained on other data"):
            load_inputs(run.record, run.config, torch.device("cpu"))
        moved = planned(folder, "dogs", *method)
        assert moved.record.path == run.record.path
        assert load_inputs(moved.record, moved.config, torch.device("cpu")).weights is not None
    finally:
        shutil.rmtree(run.record.path)


def test_a_method_starts_from_weights_of_data_that_lost_an_image_since(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "dogs", tmp_path / "dogs")
    (copy / "train/collie/0.png").unlink()
    run = planned(folder, str(copy), "method=omp", "method.sparsity=0.5")
    run.create()
    try:
        inputs = load_inputs(run.record, run.config, torch.device("cpu"))
    finally:
        shutil.rmtree(run.record.path)
    assert inputs.weights is not None
    assert len(inputs.splits.train) == 17


def test_figures_are_not_extracted_from_other_data(folder: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(folder / "runs", tmp_path / "runs")
    (record,) = all_records(runs)
    images = [folder / "dogs/val/collie" / name for name in ("4.png", "5.png")]
    for image in images:
        image.rename(folder / image.name)
    lines: list[str] = []
    try:
        assert extract([record], log=lines.append) == 0
    finally:
        for image in images:
            (folder / image.name).rename(image)
    assert "was trained on data of fingerprint" in lines[0]
    assert lines[0].endswith(
        "(missing: val/collie/4.png, val/collie/5.png); restore the data, or remove that folder to start again"
    )
    assert extract([record], log=lines.append) == 1


@pytest.mark.parametrize(
    ("wrong", "settings"),
    [
        (("model.in_chans=1",), "model.in_chans=3"),
        (("model.num_classes=10",), "model.num_classes=3"),
        (("model.in_chans=1", "model.num_classes=10"), "model.in_chans=3 model.num_classes=3"),
        (("recipe.global_batch=64", "recipe.micro_batch=64"), "recipe.global_batch=18"),
        (("recipe.global_batch=64", "recipe.micro_batch=8"), "recipe.global_batch=16"),
        (("data.limit_train=19", "data.limit_test=19"), "data.limit_train=null data.limit_test=null"),
    ],
)
def test_a_model_that_does_not_fit_leaves_no_record(folder: Path, wrong: tuple[str, ...], settings: str) -> None:
    before = list(all_records(folder / "runs"))
    train_folder = folder / "cars/train"
    assert refusal(folder, "cars", *wrong) == f"{train_folder}: its images do not fit the config; set {settings}"
    assert list(all_records(folder / "runs")) == before


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        ("", "an empty file; expected a header with ImageId,PredictionString"),
        ("<!DOCTYPE html><html>", "an HTML page; download the file again, logged in if necessary"),
        ("ImageId,PredictionString\nILSVRC2012_val_1,n01440764 1\nILSVRC", " line 3: 1 value, the header has 2"),
    ],
)
def test_a_damaged_list_of_files_leaves_no_record(tmp_path: Path, content: str, refused: str) -> None:
    write_images(tmp_path, ("n01440764", "n01443537", "n01484850"), 6, seed=0)
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val").mkdir()
    shutil.copy(tmp_path / "train/n01440764/0.png", tmp_path / "val/ILSVRC2012_val_1.png")
    (tmp_path / "LOC_val_solution.csv").write_text(content)
    words = ["data=imagenet", "data.images_per_epoch=null", f"data.root={tmp_path}"]
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'LOC_val_solution.csv'}") + f".*{refused}"):
        train([*overrides(tmp_path), *words], Console(file=io.StringIO()))
    assert not list(all_records(tmp_path / "runs"))


def test_the_header_of_the_config_is_a_command_that_works(folder: Path, tmp_path: Path) -> None:
    header = Path("conf/data/imagefolder.yaml").read_text(encoding="utf-8").splitlines()
    (command,) = (line.removeprefix("#   repro train ") for line in header if line.startswith("#   repro train "))
    words = [word for word in command.split() if not word.startswith(("data.root=", "model.num_classes="))]
    assert "data=imagefolder" in words
    words += [f"data.root={folder / 'cars'}", "model.num_classes=3", f"run.root={tmp_path}", "tracker=none"]
    words += ["scale=smoke", "recipe.global_batch=6", "recipe.micro_batch=6", "data.limit_train=null"]
    threads = torch.get_num_threads()
    try:
        assert train([*words, "data.limit_test=null"], Console(file=io.StringIO())) == 0
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (
            ["data=shapes", "data.limit_train=5000", "data.limit_test=2000", "recipe.color_jitter=0.4"],
            "data=shapes: its images do not fit the config; set model.in_chans=3 model.num_classes=8 "
            "model.image_size=16 data.limit_train=null data.limit_test=null recipe.color_jitter=0",
        ),
        (
            ["data=shapes", "data.std=[1]", "recipe.global_batch=8192", "recipe.micro_batch=4096", "launcher=slurm"],
            "data=shapes: its images do not fit the config; set model.in_chans=3 model.num_classes=8 "
            "model.image_size=16 data.std=[0.5,0.5,0.5] recipe.global_batch=4096",
        ),
        (
            ["data=digits", "model.image_size=16", "model.num_classes=7", "data.images_per_epoch=1000"],
            "data=digits: its images do not fit the config; set model.num_classes=10 model.image_size=8 "
            "data.images_per_epoch=1437",
        ),
        (
            ["data.limit_train=8", "recipe.global_batch=16", "recipe.micro_batch=4"],
            "data=digits: its images do not fit the config; set recipe.global_batch=8",
        ),
        (["data=shapes_video"], "data=shapes_video: the model takes images, not clips of videos"),
        (
            ["data=cifar10", "data.root=/only/on/the/nodes", "launcher=slurm"],
            "data=cifar10: its images do not fit the config; set model.in_chans=3 model.image_size=32",
        ),
    ],
)
def test_all_settings_that_do_not_fit_are_refused_before_there_is_a_record(
    tmp_path: Path, words: list[str], refused: str
) -> None:
    limits = ["data.limit_train=null", "data.limit_test=null"]
    with pytest.raises(UserError) as caught:
        train(["scale=smoke", f"run.root={tmp_path / 'runs'}", *limits, *words], Console(file=io.StringIO()), yes=True)
    assert str(caught.value) == refused
    assert not list(all_records(tmp_path / "runs"))


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_the_settings_that_fit_are_those_of_the_data(name: str) -> None:
    known = DATA_SETS[name]
    fitting = [f"model.in_chans={known.channels}", f"model.num_classes={known.classes}", "model.patch_size=4"]
    config = compose([f"data={name}", f"model.image_size={known.sides[0]}", *fitting])
    check_fits(config)
    splits = load_splits(config.data, config.recipe, config.model)
    assert (len(splits.train), len(splits.test)) == known.images
    assert (splits.num_classes, splits.train[0][0].shape[0]) == (known.classes, known.channels)

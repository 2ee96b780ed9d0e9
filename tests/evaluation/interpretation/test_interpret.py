from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_imagenet_segmentation import write
from torch import Tensor

from repro.cli.main import main
from repro.config.compose import compose
from repro.data.in_memory import ImagesInMemory
from repro.data.shapes_drawing import draw, scenes
from repro.data.splits import load_splits
from repro.errors import UserError
from repro.evaluation.interpretation import imagenet_segmentation
from repro.evaluation.interpretation.interpret import interpret
from repro.evaluation.interpretation.records import interpret_records
from repro.models.backbone import build_model
from repro.models.token_dropping import Decision, Dropper, attach_droppers
from repro.runs.record import Record

SHAPES = (
    *("backbone=deit_tiny", "data=shapes", "model.image_size=24", "model.patch_size=4", "model.in_chans=3"),
    "model.num_classes=8",
)


def write_segmentation(path: Path) -> Path:
    """Write seven of our shapes in the format of ImageNet-Segmentation, larger than the model's images."""
    pixels, masks = draw(scenes((9,), range(7), 64), np.arange(7))
    write(path, list(pixels), list(masks.astype(np.uint8)))
    return path


class KeepRow(Dropper):
    """Keeps the second row of a 6 x 6 grid of patches, with score 1; the other scores are 0."""

    def forward(self, values: Tensor, valid: Tensor, block: object) -> Decision:
        keep = torch.zeros_like(valid)
        keep[:, 6:12] = True
        return Decision(keep, keep.float())


def test_keep_rates_and_segmentation_worked_by_hand() -> None:
    config = compose(SHAPES)
    model = build_model(config.model, 0.0, 0)
    attach_droppers(model, [KeepRow()], 36, "packed")
    model.eval()
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[4:12, :8] = True  # two whole patches of the kept row, and two below
    mask[12, 20] = True  # a sixteenth of another patch, which is neither object nor background
    found = interpret(config, model, [(torch.zeros(3, 24, 24), mask), (torch.zeros(3, 24, 24), None)])
    metrics = found.metrics()
    assert (metrics["images"], metrics["images_with_mask"]) == (2, 1)
    (stage,) = metrics["stages"]
    assert stage["kept_pct"] == pytest.approx(100 * 6 / 36)
    assert stage["object_kept_pct"] == pytest.approx(100 * 2 / 4)
    assert stage["background_kept_pct"] == pytest.approx(100 * 4 / 31)
    # A row of ones, upsampled to rows of pixels with 1/8, 3/8, 5/8, 7/8, 7/8, 5/8, 3/8 and 1/8, from the third on.
    # The mean is 1/6, so rows 3 to 8 are predicted as the object, which is rows 4 to 11 of the first eight columns.
    counts = found.counts["token_scores"]
    assert counts.tolist()[0] == [5 * 8, 65 - 5 * 8]
    assert counts[1, 0] == 6 * 24 - 5 * 8


def test_a_limited_test_split_keeps_its_masks() -> None:
    config = compose([*SHAPES, "data.limit_test=16"])
    test = load_splits(config.data, config.recipe, config.model).test
    assert isinstance(test, ImagesInMemory)
    assert test.masks is not None
    model = build_model(config.model, 0.0, 0).eval()
    found = interpret(config, model, [(test[index][0], test.masks[index]) for index in range(16)])
    assert found.metrics()["images_with_mask"] == 16
    assert set(found.counts) == {"class_attention", "rollout"}
    assert found.metrics()["stages"] == []


def test_an_interpretation_is_replaced_by_one_of_more_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*SHAPES, "method=dense", "scale=smoke", "recipe=shapes_smoke", "model.depth=1", "tracker=none"]
    words += ["data.limit_train=64", "data.limit_test=16", "recipe.global_batch=32", "recipe.micro_batch=32"]
    for seed in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["train", *words, f"seed={seed}", f"run.root={tmp_path}"])
        assert ended.value.code == 0
    broken, whole = (Record(path) for path in sorted(tmp_path.glob("by_hand/deit_tiny/dense/smoke/seed*")))
    for saved in broken.checkpoint_dir.glob("*.pt"):
        saved.unlink()
    lines: list[str] = []
    assert interpret_records([broken, whole], limit=8, log=lines.append) == 1
    assert len(lines) == 2
    assert lines[0].startswith(f"  {broken.path}: ")
    assert interpret_records([whole], limit=8, log=lines.append) == 0
    other = write_segmentation(tmp_path / "gtsegs_ijcv.mat")
    assert interpret_records([whole], segmentation=other, log=lines.append) == 1
    assert json.loads((whole.path / "interpretation.json").read_text())["data"] == "imagenet_segmentation"
    assert interpret_records([whole], log=lines.append) == 0, "an interpretation with masks stays"
    assert interpret_records([whole], segmentation=other, limit=3, again=True, log=lines.append) == 1
    part = json.loads((whole.path / "interpretation.json").read_text())
    assert (part["images"], part["is_whole"]) == (3, False)
    assert interpret_records([whole], segmentation=other, limit=3, log=lines.append) == 0
    assert interpret_records([whole], segmentation=other, log=lines.append) == 1, "a part is not all"
    assert json.loads((whole.path / "interpretation.json").read_text())["is_whole"]
    for entries in (4276, 7):
        monkeypatch.setattr(imagenet_segmentation, "ENTRIES", entries)
        assert interpret_records([whole], segmentation=other, again=True, log=lines.append) == 1
        found = json.loads((whole.path / "interpretation.json").read_text())
        assert (found["images"], found["is_whole"]) == (7, True)
        assert found["is_the_data_set"] is (entries == 7), "a file of other size is not the data set"
    with pytest.raises(UserError, match="--images 0: at least one"):
        interpret_records([whole], limit=0)
    assert interpret_records([whole], segmentation=tmp_path / "none.mat", again=True, log=lines.append) == 0
    write(tmp_path / "odd.mat", [np.zeros((24, 24, 3), np.uint8)], [np.ones((24, 24), np.uint8)])
    assert interpret_records([whole], segmentation=tmp_path / "odd.mat", again=True, log=lines.append) == 0
    assert lines[-1].startswith(f"  {whole.path}: segmentation metrics need an object and a background")


def test_hidden_patches_are_not_in_the_maps() -> None:
    """A run that masks patches (execution=masked) has the same maps as one that drops them."""
    config, found = compose(SHAPES), []
    image = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(0))
    for execution in ("masked", "packed"):
        model = build_model(config.model, 0.0, 0)
        attach_droppers(model, [KeepRow()], 36, execution)
        found.append(interpret(config, model.eval(), [(image, None)]).examples[0]["maps"])
    for name, heat in found[1].items():
        torch.testing.assert_close(found[0][name], heat)
    assert len(found[1]) == 3


@pytest.mark.slow
def test_a_trained_interpreter_keeps_the_object_and_drops_the_background(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SHAPES, "method=ia_red2", "method.tokens.interpreters=1", "recipe=shapes_local"]
    words += ["model.depth=4", f"run.root={tmp_path}", "tracker=none"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    (path,) = tmp_path.glob("by_hand/deit_tiny/ia_red2/*/seed0-*")
    (dense,) = tmp_path.glob("by_hand/deit_tiny/dense/*/seed0-*")
    lines: list[str] = []
    assert interpret_records([Record(path), Record(dense)], limit=200, log=lines.append) == 2
    assert interpret_records([Record(path), Record(dense)], limit=200, log=lines.append) == 0
    assert len(lines) == 2
    measured = json.loads((path / "interpretation.json").read_text())
    (stage,) = measured["stages"]
    assert stage["object_kept_pct"] > 3 * stage["background_kept_pct"]
    assert stage["object_kept_pct"] > 50
    assert "token_scores" not in json.loads((dense / "interpretation.json").read_text())["maps"]
    other = write_segmentation(tmp_path / "gtsegs_ijcv.mat")
    assert interpret_records([Record(path)], segmentation=other, log=lines.append) == 1, "of other images"
    assert interpret_records([Record(path)], segmentation=other, log=lines.append) == 0
    measured = json.loads((path / "interpretation.json").read_text())
    assert (measured["data"], measured["images"], measured["images_with_mask"]) == ("imagenet_segmentation", 7, 7)
    assert set(measured["maps"]) == {"token_scores", "class_attention", "rollout"}
    with np.load(path / "interpretation.npz") as stored:
        shapes = {name: stored[name].shape for name in stored.files}
    assert shapes["images"] == (6, 24, 24, 3)
    assert shapes["kept"] == (6, 1, 36)
    assert shapes["masks"] == shapes["map_rollout"] == shapes["map_token_scores"] == (6, 24, 24)

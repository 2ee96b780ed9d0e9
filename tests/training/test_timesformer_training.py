"""A video transformer through the real loop, on real mp4 files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import Kept, Weights, same, trainer

pytest.importorskip("av")
pytest.importorskip("transformers")

from repro.config import Config
from repro.config.compose import compose
from repro.data.data_sets import DATA_SETS
from repro.evaluation.extract import inspect_model
from repro.inference.export import export, load_exported
from repro.interruption import Interrupted
from repro.methods.weights.masks import prunable_weights
from repro.models.backbone import build_model

LEARNT = ("method=ia_red2", "method.tokens.interpreters=1", "method.finetune.changes.epochs=2")


@pytest.fixture
def videos(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(DATA_SETS, "shapes_video", replace(DATA_SETS["shapes_video"], images=(32, 16)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path_factory.getbasetemp() / "moving shapes"


def config(videos: Path, *overrides: str) -> Config:
    return compose(
        [
            *("backbone=timesformer_base", "data=shapes_video", f"data.root='{videos}'", "data.images_per_epoch=32"),
            *("scale=smoke", "data.limit_train=null", "data.limit_test=null", "tracker=none", "run.device=cpu"),
            *("model.depth=2", "model.embed_dim=12", "model.num_heads=3", "recipe.epochs=2", "recipe.global_batch=16"),
            *("recipe.micro_batch=8", *overrides),
        ]
    )


def begun_with(here: Config) -> Weights | None:
    """Weights to begin with, for a method that begins with some."""
    return None if here.method.starts_from is None else build_model(here.model, 0.0, 7).state_dict()


@pytest.mark.parametrize("method", [("method=dense",), LEARNT, (*LEARNT, "recipe.amp=bfloat16")])
def test_a_stopped_run_goes_on_bit_for_bit(method: tuple[str, ...], videos: Path, tmp_path: Path) -> None:
    here = config(videos, *method)
    whole, pieces = Kept(), Kept()
    straight = trainer(here, tmp_path / "whole", begun_with(here), kept=whole)
    result = straight.run()
    for update in (1, 3):
        with pytest.raises(Interrupted):
            trainer(here, tmp_path / "pieces", begun_with(here), kept=pieces, stop_at=update).run()
    resumed = trainer(here, tmp_path / "pieces", begun_with(here), kept=pieces)
    assert resumed.resumed_from == 3
    again = resumed.run()
    left, right = straight.state.state_dict(), resumed.state.state_dict()
    for key in left.keys() - {"wall_s"}:
        assert same(left[key], right[key]), key
    assert whole.of("eval") == pieces.of("eval")
    assert {"top1_last_pct", "top1_video1_pct"} <= result.keys()
    assert result["top1_video1_pct"] == again["top1_video1_pct"]
    assert sum("top1_video1_pct" in entry for entry in whole.of("eval")) == 1, "at the end alone"


def test_masks_find_the_layers_that_are_counted(videos: Path, tmp_path: Path) -> None:
    here = config(videos, "method=svite", "method.sparsity=0.5")
    run = trainer(here, tmp_path)
    run.run()
    weights = prunable_weights(run.state.model)
    assert [layer.name for layer in here.model.layers(here.model.tokens)] == list(weights)
    nonzero = sum(int(weight.count_nonzero()) for weight in weights.values())
    assert nonzero / sum(weight.numel() for weight in weights.values()) == pytest.approx(0.5, abs=0.02)


def test_a_finished_model_is_drawn_and_exported(videos: Path, tmp_path: Path) -> None:
    here = config(videos, *LEARNT)
    run = trainer(here, tmp_path / "run", begun_with(here))
    run.run()
    weights = run.state.model.state_dict()
    clips = torch.stack([run.splits.test[index][0] for index in range(3)])
    found = inspect_model(here, weights, clips)
    assert (len(found["images"]), found["patch_size"]) == (8, 4)
    assert np.shape(found["kept"]) == (1, 8, 36), "frames, place by place"
    assert found["heads"] == [[], []]
    export(here, weights, tmp_path / "exported", {})
    with torch.inference_mode():
        exported = load_exported(tmp_path / "exported")(clips)
        torch.testing.assert_close(exported, run.state.model.eval()(clips), atol=1e-5, rtol=1e-5)

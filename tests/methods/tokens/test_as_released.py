"""What the first public code of SViTE+ did: masks of one layer, and a temperature that rises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import small_config, trainer
from torch import nn

from repro.config.compose import compose
from repro.config.costs import row_cost
from repro.config.published_training import row_config
from repro.errors import UserError
from repro.methods.tokens.svite_plus import InputTokenSelector
from repro.models.backbone import build_model
from repro.tables.loader import load_table

ONE_LAYER = "method.weights.masks=patch_embedding_only"


def test_masks_reach_the_patch_embedding_only(tmp_path: Path) -> None:
    words = ("method=svite_plus", "method.data_sparsity=0.3", "method.weights.distribution=uniform")
    run = trainer(small_config(*words, ONE_LAYER), tmp_path)
    run.run()
    (part, _) = run.state.parts
    assert set(part.layer_density()) == {"patch_embed.proj"}
    every = trainer(small_config(*words), tmp_path / "every").state.parts[0].layer_density()
    assert part.layer_density()["patch_embed.proj"] == pytest.approx(every["patch_embed.proj"]), (
        "its density is the same"
    )
    assert part.metrics()["mask_updates"] > 0, "it is exchanged as any other"
    zeros = {name: float((weight == 0).float().mean()) for name, weight in run.state.model.named_parameters()}
    assert zeros["patch_embed.proj.weight"] > 0.2
    assert (
        max(share for name, share in zeros.items() if name.endswith(("qkv.weight", "fc1.weight", "head.weight"))) == 0
    )


def test_the_published_backbone_is_nearly_dense() -> None:
    """By hand: 11.095 M of 22.051 M parameters with all masks; the patch embedding alone loses 0.234 M."""
    rows = {row.id: row for row in load_table("table1").every_row}
    costs = {name: row_cost(row_config(rows[f"deit_small/{name}"], "local")) for name in NAMES}
    assert [round(costs[name].params_m, 3) for name in NAMES] == [22.051, 11.095, 21.817, 21.817]
    assert [round(costs[name].flops_saving_pct, 2) for name in NAMES] == [0, 49.24, 6.38, 1.0]


NAMES = (
    "dense",
    "svite_plus-5-50",
    "svite_plus-5-50-masks_as_released",
    "svite_plus-50-every_token-masks_as_released",
)


@pytest.mark.parametrize(("temperature", "expected"), [("falling", [10, 5.05, 0.1]), ("rising", [0.1, 5.05, 10])])
def test_the_temperature_of_three_updates(temperature: str, expected: list[float]) -> None:
    model = build_model(small_config().model, 0.0, 0)
    options = {"selection": "gather", "temperature_start": 10.0, "temperature_end": 0.1, "temperature": temperature}
    part = InputTokenSelector(model, tokens=17, kept=9, updates=3, seed=0, **options)  # type: ignore[arg-type]
    found = []
    for update in (1, 2, 3):
        part.before_update(update)
        found.append(part.metrics()["temperature"])
    assert found == pytest.approx(expected)


def test_options_that_do_what_was_done_before_leave_the_signature_as_it_was() -> None:
    plain = compose(["method=svite_plus"])
    assert plain.signature == compose(["method=svite_plus", "method.weights.masks=all"]).signature
    assert plain.signature == compose(["method=svite_plus", "method.tokens.temperature=falling"]).signature
    others = {
        compose(["method=svite_plus", word]).signature for word in (ONE_LAYER, "method.tokens.temperature=rising")
    }
    assert len({plain.signature, *others}) == 3
    with pytest.raises(UserError, match=r"method.weights.masks=none: not known"):
        compose(["method=svite_plus", "method.weights.masks=none"])


def test_a_selection_that_keeps_every_token_changes_no_logit() -> None:
    """`(0, 50)`: what is left of the method is its masks."""
    torch.manual_seed(0)
    model = build_model(small_config().model, 0.0, 0).eval()
    images = torch.randn(4, 1, 8, 8)
    before = model(images)
    options = {"selection": "gather", "temperature_start": 10.0, "temperature_end": 0.1}
    part = InputTokenSelector(model, tokens=17, kept=17, updates=3, seed=0, **options)  # type: ignore[arg-type]
    assert isinstance(part.selector, nn.Module)
    torch.testing.assert_close(model.eval()(images), before)

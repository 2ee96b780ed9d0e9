"""`anatomy.json`: active heads from their weights, kept patches from tracing the selector."""

from __future__ import annotations

import torch

from repro.config.compose import compose
from repro.evaluation.extract import inspect_model
from repro.inference.build import attach_selector, selector_spec
from repro.models.backbone import build_model


def test_heads_and_patches_of_a_small_model() -> None:
    for selection in ("gather", "as_released"):
        config = compose(
            [
                *("backbone=deit_tiny", "method=svite_plus", "method.sparsity=0.5", "method.data_sparsity=0.3"),
                *("scale=local", f"method.tokens.selection={selection}"),
            ]
        )
        model = build_model(config.model, 0.0, 0)
        attach_selector(model, selector_spec(config))
        blocks = model.blocks
        width = config.model.embed_dim // config.model.num_heads
        values = slice(2 * config.model.embed_dim + width, 2 * config.model.embed_dim + 2 * width)
        with torch.no_grad():  # deactivate the second head of the first layer
            blocks[0].attn.qkv.weight[values] = 0  # type: ignore[index, union-attr]
            blocks[0].attn.qkv.bias[values] = 0  # type: ignore[index, union-attr]
        with torch.random.fork_rng():
            found = inspect_model(config, model.state_dict(), torch.randn(10, 1, 8, 8))
        assert found["heads"][0] == [True, False, True]
        assert all(all(layer) for layer in found["heads"][1:])
        assert (len(found["images"]), found["patch_size"]) == (8, 2)
        # 138 of 197 tokens correspond to 12 of 17: 11 of 16 patches.
        assert [[sum(kept) for kept in stage] for stage in found["kept"]] == [[11] * 8]

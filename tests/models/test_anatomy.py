"""What is read of a finished model: heads by their weights, patches by what the selector does to them."""

from __future__ import annotations

import torch

from repro.composition import compose
from repro.models.anatomy import anatomy
from repro.models.backbone import build_model
from repro.models.export import attach_selector, selector_of


def test_heads_and_patches_of_a_small_model() -> None:
    for selection in ("gather", "as_released"):
        config = compose(
            [
                *("backbone=deit_tiny", "method=svite_plus", "method.sparsity=0.5", "method.data_sparsity=0.3"),
                *("scale=local", f"method.tokens.selection={selection}"),
            ]
        )
        model = build_model(config.model, 0.0, 0)
        attach_selector(model, selector_of(config))
        blocks = model.blocks
        width = config.model.embed_dim // config.model.num_heads
        values = slice(2 * config.model.embed_dim + width, 2 * config.model.embed_dim + 2 * width)
        with torch.no_grad():  # the second head of the first layer falls silent
            blocks[0].attn.qkv.weight[values] = 0  # type: ignore[index, union-attr]
            blocks[0].attn.qkv.bias[values] = 0  # type: ignore[index, union-attr]
        with torch.random.fork_rng():
            found = anatomy(config, model.state_dict(), torch.randn(10, 1, 8, 8))
        assert found["heads"][0] == [True, False, True]
        assert all(all(layer) for layer in found["heads"][1:])
        assert (len(found["images"]), found["patch_size"]) == (8, 2)
        # 138 of 197 tokens are 12 of 17: 11 of 16 patches.
        assert [[sum(kept) for kept in stage] for stage in found["kept"]] == [[11] * 8]

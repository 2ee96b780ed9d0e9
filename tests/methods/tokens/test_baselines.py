"""What IA-RED2 is compared with: chance and attention at a budget, and Linformer, each against its formula."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_runs import config_of, small_config
from torch import nn

from repro.inference.build import attach_selector, masked_model, selector_spec
from repro.methods.tokens.attention_dropping import AttentionDropper, AttentionDropping
from repro.methods.tokens.linformer import Linformer, LinformerAttention
from repro.methods.tokens.random_dropping import RandomDropper
from repro.models.backbone import build_model
from repro.models.token_dropping import tracing

VALID = torch.ones(3, 16, dtype=torch.bool)


def loud_model() -> Any:
    """A small model, its weights large enough that attention has something to say."""
    model: Any = build_model(small_config("method=dense").model, 0.0, 1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
    return model.eval()


def test_random_dropping_keeps_as_many_of_each_image_and_others_each_time() -> None:
    dropper = RandomDropper(0.4, 16)
    torch.manual_seed(0)
    keeps = [dropper(torch.zeros(3, 17, 12), VALID, None).keep for _ in range(200)]
    assert {int(count) for keep in keeps for count in keep.sum(1)} == {round(0.4 * 16)}
    often = torch.cat(keeps).float().mean(0)
    # Five standard deviations of 600 draws at 6/16: 0.1.
    assert often.tolist() == pytest.approx([6 / 16] * 16, abs=0.1)


def test_what_is_gone_stays_gone_and_one_patch_stays_at_least() -> None:
    valid = VALID.clone()
    valid[0, :14] = False
    keep = RandomDropper(0.5, 16)(torch.zeros(3, 17, 12), valid, None).keep
    assert keep[0].tolist() == valid[0].tolist()
    assert keep[1:].sum(1).tolist() == [8, 8]
    assert RandomDropper(0.001, 16)(torch.zeros(3, 17, 12), VALID, None).keep.sum(1).tolist() == [1, 1, 1]


def test_attention_scores_are_the_attention_of_the_next_block() -> None:
    model = loud_model()
    block, values = model.blocks[0], torch.randn(3, 17, 12, generator=torch.Generator().manual_seed(2))
    attention = block.attn
    query, key, _ = attention.qkv(block.norm1(values)).reshape(3, 17, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
    by_hand = torch.stack(
        [(query[:, head, :1] @ key[:, head].transpose(-1, -2) / 2).softmax(-1)[:, 0, 1:] for head in range(3)]
    )
    assert by_hand.sum(-1).max() < 0.999, "the class token attends to itself"
    # Each head says what it says within the block: its attention is what its own module computes.
    row: list[torch.Tensor] = []
    with torch.inference_mode():
        values_of = attention.qkv(block.norm1(values)).reshape(3, 17, 3, 3, 4)[:, :, 2].transpose(1, 2)
        found = torch.nn.functional.scaled_dot_product_attention(query[:, :, :1], key, values_of)
        row += [by_hand[head, image] @ values_of[image, head, 1:] for head in range(3) for image in range(3)]
        own = [1 - by_hand[head, image].sum() for head in range(3) for image in range(3)]
        for at, (head, image) in enumerate((head, image) for head in range(3) for image in range(3)):
            whole = row[at] + own[at] * values_of[image, head, 0]
            torch.testing.assert_close(whole, found[image, head, 0], rtol=1e-4, atol=1e-5)
    dropper = AttentionDropper(0.25, 16)
    torch.testing.assert_close(dropper.scores(values, VALID, block), by_hand.mean(0))
    keep = dropper(values, VALID, block).keep
    for image in range(3):
        best = by_hand.mean(0)[image].topk(4).indices
        assert keep[image].nonzero().flatten().tolist() == sorted(best.tolist())
    valid = VALID.clone()
    valid[:, 3] = False
    assert dropper.scores(values, valid, block)[:, 3].tolist() == [0, 0, 0], "what is gone is attended to by nobody"


def test_a_finished_model_keeps_at_the_rates_that_it_was_trained_with() -> None:
    """They are the record's, not the config's, so they are saved with the weights."""
    config = config_of("attention dropping")
    model = build_model(config.model, 0.0, 0)
    AttentionDropping(model, tokens=17, keep_rates=[0.9, 0.2], execution="packed")
    built = masked_model(config, model.state_dict())
    with torch.inference_mode(), tracing(built) as traces:
        built(torch.randn(2, 1, 8, 8))
    assert [int(trace.kept.sum(1)[0]) for trace in traces] == [round(0.9 * 16), round(0.2 * 16)]


def test_linformer_by_its_formula() -> None:
    model = loud_model()
    attention = model.blocks[0].attn
    mixed = LinformerAttention(copy.deepcopy(attention), 17, 5)
    values = torch.randn(2, 17, 12, generator=torch.Generator().manual_seed(3))
    query, key, value = (attention.qkv(values)[..., 12 * part : 12 * (part + 1)] for part in range(3))
    heads = []
    for head in range(3):
        q, k, v = (each[..., 4 * head : 4 * (head + 1)] for each in (query, key, value))
        weights = torch.softmax(q @ (mixed.mix_keys @ k).transpose(-1, -2) / 2, -1)
        heads.append(weights @ (mixed.mix_values @ v))
    torch.testing.assert_close(mixed(values), attention.proj(torch.cat(heads, -1)), rtol=1e-4, atol=1e-5)


def test_linformer_with_a_mixture_for_each_token_is_attention() -> None:
    model = loud_model()
    images = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        before = model(images)
        Linformer(model, tokens=17, rank=17, seed=0)
        for block in model.blocks:
            for mixture in (block.attn.mix_keys, block.attn.mix_values):
                mixture.copy_(torch.eye(17))
        torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)


def test_linformers_mixtures_are_drawn_of_the_seed_and_differ_between_layers() -> None:
    config = config_of("linformer")
    models = [build_model(config.model, 0.0, 0) for _ in range(2)]
    for model in models:
        attach_selector(model, selector_spec(config))
    first, second = (dict(model.named_parameters()) for model in models)
    assert torch.equal(first["blocks.0.attn.mix_keys"], second["blocks.0.attn.mix_keys"])
    assert not torch.equal(first["blocks.0.attn.mix_keys"], first["blocks.1.attn.mix_keys"])
    # 64 of 197 tokens are 6 of 17.
    assert first["blocks.0.attn.mix_values"].shape == (6, 17)
    assert isinstance(models[0].head, nn.Linear)

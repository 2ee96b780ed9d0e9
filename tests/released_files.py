"""Files in exactly the formats of released trainers, for the model of a row. Weights are drawn, not trained."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from repro.config import Config
from repro.config.costs import method_changes
from repro.models.backbone import build_model

Weights = dict[str, Tensor]


def drawn_model(config: Config) -> nn.Module:
    """The dense backbone, with biases that are not zero, as after a training."""
    model = build_model(config.model, 0.0, 0).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(len(weight))) * 0.02)
    return model


def svite_unstructured(
    path: Path, config: Config, prefix: str = "module.", gumbel: bool = False, masked: str = ""
) -> Weights:
    """SViTE's checkpoint.pth; return its weights.

    Args:
        prefix: of the masks' names; DDP's or empty.
        gumbel: with the token selector's weights, which its index of parameters counts.
        masked: prefix of the names of layers that the masks reach, all by default.
    """
    model, draw = drawn_model(config), torch.Generator().manual_seed(1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    densities, masks = method_changes(config.model, config.method).densities, {}
    for index, (name, _) in enumerate(model.named_parameters()):
        layer = name.removesuffix(".weight")
        if layer in densities:
            mask = (torch.rand(weights[name].shape, generator=draw) < densities[layer]).float()
            masks[f"{prefix}{name}_{index + 2 * gumbel}"] = mask
            if layer.startswith(masked):
                weights[name] *= mask
    if gumbel:
        weights["gumbel.weight"] = torch.randn(1, config.model.token_width, generator=draw)
        weights["gumbel.bias"] = torch.zeros(1)
    torch.save(
        {**_trainer(weights), "mask": masks, "other_mask": {}, "atten_mask": {}, "fired_mask": dict(masks)}, path
    )
    return weights


def svite_structured(path: Path, config: Config) -> Weights:
    """The same with pruned heads and neurons: zero are rows of qkv and fc1 and columns of fc2, no bias and no proj."""
    weights = {name: value.clone() for name, value in drawn_model(config).state_dict().items()}
    shares, heads = method_changes(config.model, config.method).unit_shares, config.model.attention_heads
    attention, others = {}, {}
    for block in range(config.model.token_blocks):
        for layer, units in (("attn.qkv", heads), ("mlp.fc1", 0), ("mlp.fc2", 0)):
            name = f"blocks.{block}.{layer}.weight"
            mask = torch.ones_like(weights[name])
            if units:
                mask.view(3, heads, -1, mask.shape[1])[:, round(heads * shares["heads"]) :] = 0
            else:
                neurons = config.model.units["neurons"]
                rows = mask if layer == "mlp.fc1" else mask.T
                rows[round(neurons * shares["neurons"]) :] = 0
            weights[name] *= mask
            (attention if units else others)[f"{name}_mask"] = mask
    torch.save({**_trainer(weights), "mask": {}, "other_mask": others, "atten_mask": attention, "fired_mask": {}}, path)
    return weights


def _trainer(weights: Weights) -> dict[str, object]:
    """What DeiT's and SViTE's trainers save beside the masks."""
    return {
        "model": weights,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]},
        "lr_scheduler": {"num_epochs": 600},
        "epoch": 599,
        "model_ema": {name: value * 0.9 for name, value in weights.items()},
        "scaler": {},
        "args": argparse.Namespace(model="deit", sparse_init="fixed_ERK", epochs=600),
        "mask_step": 1000,
    }


def deit(path: Path, config: Config) -> Weights:
    """DeiT's published file: the weights below `model`."""
    weights = dict(drawn_model(config).state_dict())
    torch.save({"model": weights}, path)
    return weights


def timm_training(path: Path, config: Config) -> Weights:
    """A checkpoint of timm's train.py, with its moving average."""
    weights = dict(drawn_model(config).state_dict())
    ema = {name: value * 0.9 for name, value in weights.items()}
    state = {
        "epoch": 3,
        "arch": "deit",
        "state_dict": weights,
        "state_dict_ema": ema,
        "args": argparse.Namespace(lr=1.0),
    }
    torch.save({**state, "optimizer": {}, "version": 2, "metric": 72.1}, path)
    return weights


_TORCHVISION = (
    (r"^cls_token", "class_token"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^pos_embed", "encoder.pos_embedding"),
    (r"^norm\.", "encoder.ln."),
    (r"^head\.", "heads.head."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layers.encoder_layer_\1.ln_\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.encoder_layer_\1.self_attention.out_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.encoder_layer_\1.mlp.0."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.encoder_layer_\1.mlp.3."),
)


def torchvision_name(name: str) -> str:
    """torchvision's name of a vision transformer's parameter."""
    for pattern, replacement in _TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return name


def spartan(path: Path, config: Config, is_finished: bool) -> Weights:
    """Spartan's model.pt (`is_finished`: exact zeros), or its checkpoint.pt, whose masks are beside the weights."""
    model, draw = drawn_model(config), torch.Generator().manual_seed(1)
    densities = method_changes(config.model, config.method).densities
    final, stored = dict(model.state_dict()), {}
    for name, value in model.state_dict().items():
        layer = name.removesuffix(".weight")
        stored[torchvision_name(name)] = value
        if layer in densities and name.endswith(".weight"):
            mask = torch.rand(value.shape, generator=draw)
            threshold = torch.quantile(mask.flatten()[:100_000], 1 - densities[layer])
            final[name] = value * mask * (mask >= threshold)
            place = torchvision_name(name).removesuffix("weight")
            stored |= {f"{place.removesuffix('in_proj_')}mask": mask}
            stored |= {f"{place.removesuffix('in_proj_')}hard_mask_threshold": threshold}
    if is_finished:
        torch.save({torchvision_name(name): value for name, value in final.items()}, path)
    else:
        sparsifier = {"config": {}, "_step_count": 1, "_frozen": True, "_finalized": False}
        torch.save({"epoch": 99, "model": stored, "optimizer": {}, "lr_scheduler": {}, "sparsifier": sparsifier}, path)
    return final


def ia_red2(path: Path, config: Config) -> Weights:
    """IA-RED2's state dict: the model's weights, its blocks again in groups, and interpreters with unused values."""
    model, draw = drawn_model(config), torch.Generator().manual_seed(1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    width, size = config.model.token_width, config.model.token_blocks // 3
    for name, value in list(weights.items()):
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            weights[f"groups.{int(block) // size}.block_list.{int(block) % size}.{rest}"] = value
    for group in range(3):
        weights[f"groups.{group}.agent.qk.weight"] = torch.randn(3 * width, width, generator=draw) * 0.3
        weights[f"groups.{group}.agent.qk.bias"] = torch.randn(3 * width, generator=draw) * 0.1
    torch.save(weights, path)
    return weights

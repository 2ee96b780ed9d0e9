"""Finding the weights in checkpoints of other trainers, and loading them into a model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from small_runs import SHORT, VIT
from torch import Tensor, nn
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models import VisionTransformer as TorchvisionViT
from torchvision.models.resnet import Bottleneck

from repro.config.compose import compose
from repro.errors import UserError
from repro.evaluation.weights.names import with_model_names
from repro.evaluation.weights.state_dict import load_weights, read_state_dict
from repro.inference.build import masked_model
from repro.models.backbone import build_model

CONFIG = compose([*VIT, *SHORT])
STATE = masked_model(CONFIG, None).state_dict()
AVERAGE = {name: value + 1 for name, value in STATE.items()}


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (STATE, ""),
        ({"model": STATE, "optimizer": {}, "mask": {"a": torch.ones(1)}}, "model"),
        ({"state_dict": STATE, "hyper_parameters": {"lr": 1}}, "state_dict"),
        ({"model_state_dict": STATE, "epoch": 1}, "model_state_dict"),
        ({"model": {"module": STATE, "step": 3}}, "model.module"),
    ],
)
def test_weights_are_found_below_the_keys_of_trainers(content: Any, key: str, tmp_path: Path) -> None:
    state = read_state_dict(saved(tmp_path, content))
    assert (state.key, state.is_ema, state.alternative) == (key, False, "")
    assert equal(state.weights, STATE)


@pytest.mark.parametrize("ema_key", ["model_ema", "state_dict_ema", "ema_state_dict"])
def test_of_weights_and_their_average_one_is_chosen_and_the_other_named(ema_key: str, tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": STATE, ema_key: AVERAGE})
    raw, average = read_state_dict(path), read_state_dict(path, ema=True)
    assert (raw.key, raw.is_ema, raw.alternative) == ("model", False, ema_key)
    assert (average.key, average.is_ema, average.alternative) == (ema_key, True, "model")
    assert equal(raw.weights, STATE)
    assert equal(average.weights, AVERAGE)


def test_a_file_with_only_an_average_gives_that(tmp_path: Path) -> None:
    state = read_state_dict(saved(tmp_path, {"model_ema": AVERAGE, "epoch": 3}))
    assert (state.key, state.is_ema, state.alternative) == ("model_ema", True, "")
    assert equal(state.weights, AVERAGE)


@pytest.mark.parametrize("content", [STATE, {"model": STATE}])
def test_a_missing_average_is_an_error(content: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --ema"):
        read_state_dict(saved(tmp_path, content), ema=True)


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": {}}, [torch.ones(1)], {"model": {"a": 1}}])
def test_a_file_without_weights_is_an_error(content: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights found; expected a state dict, or one below model, state_dict"):
        read_state_dict(saved(tmp_path, content))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_prefixes_are_removed_in_any_order(count: int) -> None:
    for prefixes in itertools.permutations(("module.", "_orig_mod.", "model."), count):
        wrapped = {"".join(prefixes) + name: value for name, value in STATE.items()}
        assert equal(with_model_names(wrapped, STATE, "a file"), STATE)


def test_a_prefix_of_some_names_is_removed_too() -> None:
    wrapped = {f"module.{name}" if name.startswith("blocks.") else name: value for name, value in STATE.items()}
    assert equal(with_model_names(wrapped, STATE, "a file"), STATE)
    with pytest.raises(UserError, match=r"two weights are named head\.bias"):
        with_model_names({**STATE, "module.head.bias": STATE["head.bias"]}, STATE, "a file")


def randomized(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) * 0.2 + 0.05)
    return model.eval()


def test_torchvisions_vision_transformer_keeps_its_logits() -> None:
    theirs = randomized(
        TorchvisionViT(image_size=8, patch_size=2, num_layers=2, num_heads=3, hidden_dim=12, mlp_dim=48, num_classes=10)
    )
    ours = build_model(compose([*VIT, *SHORT, "model.in_chans=3"]).model, 0.0, 0).eval()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    state = theirs.state_dict()
    before_0_13 = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): state[name] for name in state
    }
    for weights in (state, before_0_13):
        load_weights(ours, weights, "a file")
        with torch.inference_mode():
            torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_torchvisions_resnet_keeps_its_logits() -> None:
    theirs = randomized(TorchvisionResNet(Bottleneck, [1, 1, 1, 1], num_classes=10))
    ours = timm.create_model("resnet50", num_classes=10, layers=[1, 1, 1, 1]).eval()
    load_weights(ours, theirs.state_dict(), "a file")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("key", ["", "model"])
def test_masks_of_an_unfinished_training_with_spartan_are_applied(key: str, tmp_path: Path) -> None:
    weights = {
        "fc.weight": torch.ones(4, 4),
        "fc.mask": torch.tensor([[1.0, 0.2], [0.4, 0.9]]),  # one entry per 2 x 2 block
        "fc.hard_mask_threshold": torch.tensor(0.3),
        "self_attention.in_proj_weight": torch.full((2, 1), 2.0),
        "self_attention.mask": torch.tensor([[0.5], [0.0]]),
        "self_attention.hard_mask_threshold": torch.tensor(0.1),
        "mask": torch.ones(1),
    }
    read = read_state_dict(saved(tmp_path, {key: weights} if key else weights))
    assert read.weights.keys() == {"fc.weight", "self_attention.in_proj_weight", "mask"}
    assert read.masked == ("fc.weight", "self_attention.in_proj_weight")
    expected = [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.4, 0.4, 0.9, 0.9], [0.4, 0.4, 0.9, 0.9]]
    torch.testing.assert_close(read.weights["fc.weight"], torch.tensor(expected))
    assert read.weights["self_attention.in_proj_weight"].tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype) -> None:
    model = masked_model(CONFIG, None)
    weights = {name: value.to(dtype) for name, value in STATE.items()}
    fitted = load_weights(model, weights, "a file")
    assert {value.dtype for value in fitted.values()} == {torch.float32}
    assert equal(dict(model.state_dict()), {name: value.float() for name, value in weights.items()})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_classes": 5}, "weights of a model with other sizes; set model.num_classes=5"),
        ({"image_size": 12}, "weights of a model with other sizes; set model.image_size=12"),
        ({"num_classes": 5, "image_size": 12}, "set model.num_classes=5 model.image_size=12"),
        ({"embed_dim": 24}, "not the weights of this model: cls_token 1x1x24 instead of 1x1x12"),
        ({"depth": 3}, r"with blocks\.2\..* and 9 more, which the model does not have; set backbone="),
        ({"depth": 1}, r"without blocks\.1\."),
    ],
)
def test_weights_of_another_model_say_what_to_set(sizes: dict[str, int], message: str) -> None:
    weights = build_model(CONFIG.model.model_copy(update=sizes), 0.0, 0).state_dict()
    with pytest.raises(UserError, match=message) as refused:
        load_weights(masked_model(CONFIG, None), weights, "a.pth")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("extra", "advice"),
    [
        (["dist_token", "head_dist.weight"], "distilled DeiT models"),
        (
            ["pre_logits.fc.bias", "pre_logits.fc.weight"],
            "vision transformers with a layer before the head (pre_logits, of older versions of timm)",
        ),
        (["fc_norm.weight"], "vision transformers that average their tokens (fc_norm)"),
        (["blocks.0.ls1.gamma"], "vision transformers with LayerScale, such as DeiT III"),
    ],
)
def test_models_that_no_backbone_here_is_are_named(extra: list[str], advice: str) -> None:
    weights = {**STATE, **{name: torch.ones(12) for name in extra}}
    with pytest.raises(UserError) as refused:
        load_weights(masked_model(CONFIG, None), weights, "a.pth")
    assert str(refused.value) == (
        f"a.pth: not the weights of this model: with {', '.join(extra)}, which the model does not have; {advice} are "
        "not among the backbones here"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weights = {name: tensor.clone() for name, tensor in STATE.items()}
    weights["head.bias"][3] = value
    with pytest.raises(UserError, match=r"a\.pth: weights are NaN or infinite: head\.bias \(1 of 10\)"):
        load_weights(masked_model(CONFIG, None), weights, "a.pth")


@pytest.mark.parametrize("blocks", [(3, 1), (0, 1), (200, 1)])
def test_a_mask_that_does_not_divide_its_weight_is_one_line(blocks: tuple[int, int], tmp_path: Path) -> None:
    weights = {"fc.weight": torch.ones(8, 4), "fc.mask": torch.ones(blocks), "fc.hard_mask_threshold": torch.ones(1)}
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd.pth: fc.mask does not divide fc.weight, of shape \(8, 4\)") as raised:
        read_state_dict(tmp_path / "odd.pth")
    assert "\n" not in str(raised.value)


def test_position_embeddings_without_a_position_are_one_line() -> None:
    model = build_model(compose(["backbone=deit_tiny"]).model, 0.0, 0)
    weights = model.state_dict()
    weights["pos_embed"] = weights["pos_embed"][:, :0]
    with pytest.raises(UserError, match="not the weights of this model"):
        load_weights(model, weights, "odd.pth")

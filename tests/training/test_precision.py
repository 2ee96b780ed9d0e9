"""Which of torch's attention kernels an update computes with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from repro.models.precision import attention

CPU = torch.device("cpu")


def attended(mask: Tensor | None = None) -> Tensor:
    query, key, value = torch.randn(3, 2, 3, 9, 4, generator=torch.Generator().manual_seed(0)).bfloat16().unbind(0)
    return scaled_dot_product_attention(query.requires_grad_(), key, value, attn_mask=mask)


def is_fused(found: Tensor) -> bool:
    assert found.grad_fn is not None
    return "FlashAttention" in found.grad_fn.name()


@pytest.mark.parametrize(
    ("amp", "has_amx", "device", "fused"),
    [
        ("bfloat16", False, "cpu", False),
        ("bfloat16", True, "cpu", True),
        ("none", False, "cpu", True),
        ("bfloat16", False, "cuda", True),
    ],
)
def test_only_bfloat16_on_a_cpu_without_amx_leaves_the_fused_kernel(
    amp: str, has_amx: bool, device: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    with attention(amp, torch.device(device)):
        assert is_fused(attended()) == fused
    assert is_fused(attended()), "afterwards it is torch's own choice again"


@pytest.mark.parametrize("mask", [None, (torch.arange(9) < 6)[None]])
def test_it_computes_the_same_but_for_rounding(mask: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    expected = attended(mask).float()
    with attention("bfloat16", CPU):
        found = attended(mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2**-6, atol=2**-6)


def test_a_failure_leaves_torchs_settings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()

    def failing() -> None:
        with attention("bfloat16", CPU):
            assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        failing()
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() == before
    assert is_fused(attended())

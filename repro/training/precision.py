"""Mixed precision: what a recipe's `amp` means, on whatever device it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """Forward passes in bfloat16 where `amp` is `bfloat16`; in the weights' own precision where it is `none`.

    The recipe alone decides, not the device: `amp` is in a run's signature, so two runs of one signature are of one
    precision. bfloat16 has float32's range: no loss is scaled, and no update (nor its mask update) is skipped. Weights,
    gradients and scores stay float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=amp == "bfloat16")


@contextmanager
def attention(amp: str, device: torch.device) -> Iterator[None]:
    """Torch's attention as it is fastest here, for forward and backward passes.

    That is its own choice but for bfloat16 on a CPU without AMX: there its fused kernel takes twice as long as two
    products with a softmax between them, which keep the attention of every head (docs/training.md).
    """
    if amp != "bfloat16" or device.type != "cpu" or torch.cpu._is_amx_tile_supported():
        yield
        return
    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    cuda.allow_fp16_bf16_reduction_math_sdp(True)  # or the products are computed in float32; it is no CUDA setting
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cuda.allow_fp16_bf16_reduction_math_sdp(before)

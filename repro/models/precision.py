"""Mixed precision according to a recipe's `amp`, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """Run forward passes in bfloat16 if `amp` is `bfloat16`, or in the precision of the weights if it is `none`.

    The precision does not depend on the device, because all runs of a signature must use the same one. bfloat16 has the
    range of float32, so that no loss is scaled, and no optimizer or mask update is skipped. Weights, gradients and
    scores stay in float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=amp == "bfloat16")


@contextmanager
def attention(amp: str, device: torch.device) -> Iterator[None]:
    """Use torch's fastest attention in forward and backward passes.

    This is the default except in bfloat16 on a CPU without AMX, where the fused kernel takes twice as long as two
    products with a softmax between them, which store the attention matrix of every head (docs/training.md).
    """
    if amp != "bfloat16" or device.type != "cpu" or torch.cpu._is_amx_tile_supported():
        yield
        return
    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    cuda.allow_fp16_bf16_reduction_math_sdp(True)  # otherwise, products are computed in float32; applies to CPUs, too
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cuda.allow_fp16_bf16_reduction_math_sdp(before)

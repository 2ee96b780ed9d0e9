"""The products of linear layers in training, where another library than torch's choice computes them faster.

Torch multiplies float32 matrices on a CPU by MKL. On an AMD CPU with AVX-512, oneDNN, which torch brings as well, is
faster in the forward product and in that of the inputs' gradient, and slower in that of the weights'
(docs/training.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from repro.runs.provenance import cpu_name

# Where it was measured to pay: DeiT-Small's width and more. The products of the local scale are left as they are.
LEAST_WIDTH, LEAST_ROWS = 384, 512


def is_faster_by_onednn() -> bool:
    """Whether this is a CPU of that kind. Not measured: a run that is resumed here has to compute as it began."""
    return (
        "AMD" in cpu_name()
        and torch.cpu._is_avx512_supported()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def use_onednn(model: nn.Module) -> None:
    """Let the wide linear layers of a model train with oneDNN's products, in place; evaluation stays as it is."""
    for module in model.modules():
        if type(module) is nn.Linear and min(module.in_features, module.out_features) >= LEAST_WIDTH:
            module.__class__ = OneDNNLinear


class OneDNNLinear(nn.Linear):
    """A linear layer whose training in float32 on a CPU is faster; everything else is `nn.Linear`'s."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        is_usual = (
            not torch.is_grad_enabled()
            or torch.is_autocast_enabled(inputs.device.type)
            or inputs.device.type != "cpu"
            or inputs.dtype != torch.float32
            or inputs.numel() < LEAST_ROWS * self.in_features
        )
        if is_usual:
            return functional.linear(inputs, self.weight, self.bias)
        outputs: Tensor = _Linear.apply(inputs, self.weight, self.bias)
        return outputs


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        of_inputs, of_weight, _ = ctx.needs_input_grad  # what does not learn keeps nothing
        ctx.save_for_backward(rows if of_weight else None, weight if of_inputs else None)
        ctx.size = inputs.shape
        return product(rows, weight, bias).view(*inputs.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t(), None).view(ctx.size) if of_inputs else None,
            gradient.t().mm(rows) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Rows (n, in) times the transposed weight (out, in), and the bias: by oneDNN, without a gradient of its own."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found

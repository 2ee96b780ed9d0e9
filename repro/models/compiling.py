"""torch.compile of transformer blocks: one short compilation serves all blocks; the code between them stays eager."""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from repro.errors import UserError


def compile_blocks(model: Any, device: torch.device, backend: str = "inductor") -> None:
    """Compile each transformer block of a model in place, or the whole model if it has none.

    Parameter names and random draws do not change. Raises `UserError` without a C++ compiler on a CPU, or without
    Triton on a GPU.
    """
    if backend == "inductor":
        _check_compilers(device)
    # Each drop-path rate and each frozen parameter needs a recompilation. Beyond its limit, Dynamo falls back to eager.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    torch._dynamo.config.accumulated_recompile_limit = max(torch._dynamo.config.accumulated_recompile_limit, 1024)
    torch._inductor.config.fallback_random = True  # the same random draws as in eager mode
    blocks = getattr(model, "blocks", None)
    for module in blocks if isinstance(blocks, nn.Sequential) else [model]:
        module.compile(backend=backend)


def eager_if_hooked(model: nn.Module) -> AbstractContextManager[Any]:
    """Run eagerly while any module has a hook: a compiled block ignores hooks that are added afterwards.

    Methods use hooks only before the first update and in updates that change masks.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance
    return nullcontext()


def _check_compilers(device: torch.device) -> None:
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    if device.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise UserError("run.compile=true: found no C++ compiler (g++, or CXX); install one or set run.compile=false")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("run.compile=true: Triton is not installed; install it or set run.compile=false")

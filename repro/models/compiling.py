"""torch.compile, block by block: a short compilation that serves all of them; what stands between them stays eager."""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from repro.errors import UserError

_BACKENDS = ("inductor",)


def compile_blocks(model: Any, device: torch.device, backend: str = "inductor") -> None:
    """Let torch compile each transformer block of a model in place, or all of a model that has none.

    Names of parameters and what is drawn at random stay what they are. Raises `UserError` where there is nothing to
    compile with: a C++ compiler on a CPU, Triton on a GPU.
    """
    if backend in _BACKENDS:
        _check_compilers(device)
    # Each drop-path rate and each frozen parameter makes another variant; past its limit dynamo would go on eagerly.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    torch._dynamo.config.accumulated_recompile_limit = max(torch._dynamo.config.accumulated_recompile_limit, 1024)
    torch._inductor.config.fallback_random = True  # the draws of the eager model
    blocks = getattr(model, "blocks", None)
    for module in blocks if isinstance(blocks, nn.Sequential) else [model]:
        module.compile(backend=backend)


def eager_where_watched(model: nn.Module) -> AbstractContextManager[Any]:
    """Eager while anything watches a module: a compiled block does not see a hook that came after it.

    Methods watch in updates that change masks; all others are compiled.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance
    return nullcontext()


def _check_compilers(device: torch.device) -> None:
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    if device.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise UserError("run.compile=true: there is no C++ compiler here (g++, or CXX); install one or set it to false")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("run.compile=true: torch has no Triton here; install it or set run.compile=false")

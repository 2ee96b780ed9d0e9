"""Every method on the device against the CPU in float32: losses, weights, and masks or units chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cases import Case, Training
from benchmarks.figures import Figure

BATCH, ACCUMULATE = 8, 2
EARLY = 4
# Losses are near 2.3. After a few updates rounding may have moved a mask, and the losses may part further.
FLOAT32_EARLY, FLOAT32, BFLOAT16 = 1e-4, 0.05, 0.1
CHOSEN = 0.98  # share of what was chosen that must be the same in float32


class HostNoise(TorchDispatchMode):
    """Random numbers drawn on the CPU and moved: the same on every device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if name in ("bernoulli_", "exponential_", "uniform_", "normal_"):
            drawn = func(torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:], **kwargs)
            return args[0].copy_(drawn)
        if name == "bernoulli":
            return func(args[0].cpu(), *args[1:], **kwargs).to(args[0].device)
        if name in ("rand_like", "randn_like"):
            return func(args[0].cpu(), **{**kwargs, "device": None}).to(args[0].device)
        if name in ("rand", "randn", "randperm"):
            place = kwargs.pop("device", None)
            return func(*args, **kwargs).to(place)
        return func(*args, **kwargs)


def correctness(case: Case, device: torch.device) -> Iterator[Figure]:
    """One figure for each precision."""
    exact_products()
    reference = trained(case, torch.device("cpu"), "none")
    yield _compared(case.name, "float32", reference, trained(case, device, "none"))
    yield _compared(case.name, "bfloat16", reference, trained(case, device, "bfloat16"))


def compiling(case: Case, device: torch.device, compiler: str) -> Iterator[Figure]:
    """The same of compiled blocks against eager ones, both on the device."""
    exact_products()
    eager, compiled = (trained(case, device, "none", which, drops_paths=False) for which in (None, compiler))
    yield _compared(case.name, "float32, compiled", eager, compiled)


def exact_products() -> None:
    """Matrix products of float32 in float32: TF32 would round their factors to 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def trained(
    case: Case, device: torch.device, amp: str, compiler: str | None = None, drops_paths: bool = True
) -> tuple[list[float], Training]:
    """Train a case; return the loss of each update and the final state."""
    # Draws inside a compiled block cannot be taken from the host, and what is compiled runs eagerly below a dispatcher:
    # neither of the two that are compared drops paths, and both draw on the device.
    rate = None if drops_paths else 0.0
    training = Training(case, device, batch=BATCH, accumulate=ACCUMULATE, amp=amp, drop_path=rate, compiler=compiler)
    losses = []
    for _ in range(case.length.updates):
        with HostNoise() if drops_paths else nullcontext():
            training.update()
        losses.append(training.loss())
    return losses, training


def _compared(
    name: str, how: str, reference: tuple[list[float], Training], found: tuple[list[float], Training]
) -> Figure:
    apart = [abs(a - b) for a, b in zip(reference[0], found[0], strict=True)]
    same = _share_chosen_alike(reference[1], found[1])
    is_exact = not how.startswith("bfloat16")
    met = max(apart) <= (FLOAT32 if is_exact else BFLOAT16)
    if is_exact:
        met = met and max(apart[:EARLY]) <= FLOAT32_EARLY and same >= CHOSEN
    bound = f"losses within {FLOAT32_EARLY:g} ({EARLY} updates), {FLOAT32:g}; {100 * CHOSEN:g} % chosen alike"
    return Figure(
        f"{name}, {how}: against the reference",
        bound if is_exact else f"losses within {BFLOAT16:g}",
        f"{max(apart[:EARLY]):.1e}, {max(apart):.1e}; {100 * same:.2f} % alike",
        met,
        {"reference": reference[0], "losses": found[0]},
    )


def _share_chosen_alike(first: Training, second: Training) -> float:
    """Return the share of equal entries in masks and sets of units; 1 if there are none."""
    pairs = [
        (a.cpu(), b.cpu())
        for left, right in zip(first.state.parts, second.state.parts, strict=True)
        for a, b in zip(_chosen(left.state_dict()), _chosen(right.state_dict()), strict=True)
    ]
    entries = sum(a.numel() for a, _ in pairs)
    return sum(int((a == b).sum()) for a, b in pairs) / entries if entries else 1.0


def _chosen(state: Any) -> Iterator[Tensor]:
    """Bool and byte tensors of a nested state."""
    if isinstance(state, Tensor) and state.dtype in (torch.bool, torch.uint8):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _chosen(value)

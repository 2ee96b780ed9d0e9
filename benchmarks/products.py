"""The matrix products of a training step, timed one by one: the least time that a step of these products can take.

Square products do not give that limit: some machines multiply the shapes of a step faster than squares of 2048. Each
product is therefore timed in its own shape and layout, and in the other available layouts and libraries; the fastest
counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_MATRIX = {aten.mm.default: (0, 1), aten.addmm.default: (1, 2), aten.bmm.default: (0, 1), aten.baddbmm.default: (1, 2)}
_WHOLE = (
    aten.convolution.default,
    aten.convolution_backward.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
)


@dataclass(frozen=True)
class _Layout:
    """A tensor's shape, strides and dtype."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def noise(self) -> Tensor:
        """Return a random tensor with this layout."""
        # An expanded gradient has strides of 0: its entries share memory, so noise is drawn per memory location.
        n_entries = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        memory = torch.randn(n_entries) if self.dtype.is_floating_point else torch.zeros(n_entries)
        return memory.to(self.dtype).as_strided(self.shape, self.strides)


class Products(TorchDispatchMode):
    """Counts the products that run while it is active, by operator, layouts and other arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and count it if it is a product."""
        if func in _MATRIX:
            left, right = (_layout(args[index]) for index in _MATRIX[func])
            self.counts[(func, (left, right), ())] += 1
        elif func in _WHOLE:
            self.counts[(func, tuple(map(_layout, args)), tuple((kwargs or {}).items()))] += 1
        return func(*args, **(kwargs or {}))

    def least_s(self, rounds: int = 5) -> float:
        """Return the total time of all products in seconds, each computed in the fastest way."""
        return sum(count * _fastest_s(*product, rounds) for product, count in self.counts.items())


def _layout(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Layout(tuple(value.shape), value.stride(), value.dtype)
    return tuple(value) if isinstance(value, list) else value


def _fastest_s(operator: Any, layouts: tuple[Any, ...], keywords: tuple[Any, ...], rounds: int) -> float:
    if operator in _WHOLE:
        given = [one.noise() if isinstance(one, _Layout) else _argument(one) for one in layouts]
        ways: Iterable[Callable[[], object]] = [lambda: operator(*given, **dict(keywords))]
    else:
        ways = _ways(*(one.noise() for one in layouts))
    return min(_least(way, rounds) for way in ways)


def _argument(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _ways(left: Tensor, right: Tensor) -> Iterator[Callable[[], object]]:
    """Yield the product in the layouts of the step, in row-major and column-major order, and by NumPy's library."""
    batched = left.dim() == 3
    multiply: Any = torch.bmm if batched else torch.mm
    forms = [(one, one.contiguous(), one.mT.contiguous().mT) for one in (left, right)]
    for first in forms[0]:
        for second in forms[1]:
            yield lambda first=first, second=second: multiply(first, second)
    if left.dtype == torch.float32:
        arrays = left.contiguous().numpy(), right.contiguous().numpy()
        yield lambda: arrays[0] @ arrays[1]


def _least(way: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])

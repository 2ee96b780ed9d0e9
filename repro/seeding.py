"""Named random streams: draws depend only on the name of their stream, not on earlier draws.

A name consists of parts, such as `"order"`, the run's seed and the epoch. A resumed run uses the same names and
therefore draws the same numbers, without a saved generator state.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch


def stream_seed(*parts: int | str) -> int:
    """Return the seed of the stream named by `parts`, in [0, 2**63): a blake2b hash, the same on every machine.

    The order and types of the parts matter: `("a", 1)`, `(1, "a")` and `("a", "1")` are three different streams.
    Raises `TypeError` for a part that is neither an int nor a string.
    """
    for part in parts:
        if not isinstance(part, int | str):
            raise TypeError(f"parts of a stream's name must be ints or strings, not {part!r}")
    digest = blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed the global CPU generators of Python, NumPy and torch with the stream `parts`, and restore them afterwards.

    CUDA generators are not changed (`torch.manual_seed` would reset them).
    """
    with preserved_generators():
        seed_generators(*parts)
        yield


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Restore the global CPU generators of Python, NumPy and torch after the block."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_generators(*parts: int | str) -> None:
    """Seed the global CPU generators of Python, NumPy and torch with the stream `parts`."""
    # Different seeds: NumPy and torch are Mersenne Twisters that draw the same numbers from the same seed.
    random.seed(stream_seed("random", *parts))
    np.random.seed(stream_seed("numpy", *parts) % 2**32)
    torch.default_generator.manual_seed(stream_seed("torch", *parts))


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator for the stream `parts`, the same on every rank and device."""
    return torch.Generator().manual_seed(stream_seed(*parts))

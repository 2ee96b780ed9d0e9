"""Seeds by name: what is drawn depends on what it is drawn for, never on what was drawn before.

A stream is named by its parts (`"order"`, the run's seed, the epoch). A run that was killed and resumed asks for the
same names and so draws the same numbers, without having stored a generator's state.
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
    """The seed of the stream that `parts` name: in [0, 2**63), from blake2b, the same on every machine.

    Order and type of the parts count: `("a", 1)`, `(1, "a")` and `("a", "1")` are three streams.
    Raises `TypeError` for a part that is neither an int nor a string.
    """
    for part in parts:
        if not isinstance(part, int | str):
            raise TypeError(f"a stream is named by ints and strings, not by {part!r}")
    digest = blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Python's, NumPy's and torch's global CPU generators, at the start of the stream `parts` within the block.

    All three are put back afterwards. CUDA's generators are not touched (`torch.manual_seed` would reset them).
    """
    with kept():
        begin_stream(*parts)
        yield


@contextmanager
def kept() -> Iterator[None]:
    """Python's, NumPy's and torch's global CPU generators are after the block what they were before it."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def begin_stream(*parts: int | str) -> None:
    """Set the three global CPU generators to the start of the stream `parts`, and leave them so."""
    # All three are Mersenne twisters: one seed for all would make their streams copies of each other.
    random.seed(stream_seed("random", *parts))
    np.random.seed(stream_seed("numpy", *parts) % 2**32)
    torch.default_generator.manual_seed(stream_seed("torch", *parts))


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator at the start of the stream `parts`: the same on every rank and device."""
    return torch.Generator().manual_seed(stream_seed(*parts))

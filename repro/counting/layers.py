"""The prunable weights of a backbone, and the dense backbone that they are part of, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One prunable weight.

    Attributes:
        name: name of the module in the built model.
        shape: `(out, in)` or `(out, in, kernel, kernel)`.
        uses: number of multiplications by each entry for one image (tokens, or output positions of a convolution).
        rows_of, columns_of: the kind of unit (a key of `Geometry.units`) that the rows and columns belong to and are
            removed with; empty for none.
        block: index of the transformer block that the layer is in; None outside blocks.
    """

    name: str
    shape: tuple[int, ...]
    uses: int
    rows_of: str = ""
    columns_of: str = ""
    block: int | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class DenseModel:
    """A backbone with nothing removed.

    Attributes:
        layers: its prunable weights, in the model's order.
        vector_params: parameters that are never sparse: biases, norms, class token, position embedding.
        attention_macs: MACs of the products between activations (QK^T and AV), for one image.
    """

    layers: tuple[Layer, ...]
    vector_params: int
    attention_macs: int

    @property
    def params(self) -> int:
        """Number of all parameters."""
        return self.vector_params + sum(layer.size for layer in self.layers)

    @property
    def macs(self) -> int:
        """All MACs of one image."""
        return self.attention_macs + sum(layer.size * layer.uses for layer in self.layers)


def units_kept(total: int, density: float) -> int:
    """Number of heads or neurons kept of `total`, rounded down as in the released code (0.7 of 6 heads is 4)."""
    return max(1, int(total * density + 1e-9))


def is_masked(layer: str, masks: str) -> bool:
    """Return whether a layer is masked if `masks` is `all` or `patch_embedding_only`."""
    return masks == "all" or layer.startswith("patch_embed.")

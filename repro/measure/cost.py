"""Parameters and MACs of a row, counted from its config: exact, without building or training a model.

MACs are multiply-accumulates of matrix products and convolutions for one image, QK^T and AV among them; softmax, norms,
activations and biases are not counted, and a zero weight is free. This is what the SViTE paper calls FLOPs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from repro.config import Config, Geometry, Method, Part
from repro.sparsity.erk import layer_densities


@dataclass(frozen=True)
class Cost:
    """What one row costs.

    Attributes:
        params_m: parameters that are not zero, in millions, biases and norms among them.
        macs_g: MACs of one image, in 1e9, by the table convention: attention matmuls of removed heads count in full.
        flops_saving_pct: saving of `macs_g` against the dense backbone, in percent.
        flops_saving_alt_pct: the same by the figure convention: attention matmuls of removed heads are credited.
        is_exact: False where the final density of single layers is decided by training (global pruning); the split
            over layers is then taken as uniform.
    """

    params_m: float
    macs_g: float
    flops_saving_pct: float
    flops_saving_alt_pct: float
    is_exact: bool


@dataclass(frozen=True)
class Layer:
    """One prunable weight: its shape and how often each entry is used for one image."""

    name: str
    shape: tuple[int, ...]
    uses: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def vit_layers(model: Geometry, tokens: int) -> list[Layer]:
    """The prunable weights of a vision transformer that goes on with `tokens` tokens after the embedding."""
    dim, hidden = model.embed_dim, model.embed_dim * model.mlp_ratio
    layers = [Layer("patch_embed.proj", (dim, model.in_chans, model.patch_size, model.patch_size), model.patches)]
    for index in range(model.depth):
        layers += [
            Layer(f"blocks.{index}.attn.qkv", (3 * dim, dim), tokens),
            Layer(f"blocks.{index}.attn.proj", (dim, dim), tokens),
            Layer(f"blocks.{index}.mlp.fc1", (hidden, dim), tokens),
            Layer(f"blocks.{index}.mlp.fc2", (dim, hidden), tokens),
        ]
    return [*layers, Layer("head", (model.num_classes, dim), 1)]


def units_kept(total: int, density: float) -> int:
    """Heads or neurons left of `total` at `density`, rounded down as in the released code (0.7 of 6 heads is 4)."""
    return max(1, int(total * density + 1e-9))


def tokens_kept(model: Geometry, part: Part | None) -> int:
    """Tokens that a selector keeps of this model's, the class token among them: its fraction of the published count."""
    if part is None or part.kept is None or part.of is None:
        return model.tokens
    return min(model.tokens, max(2, round(model.tokens * part.kept / part.of)))


def row_cost(config: Config) -> Cost:
    """The cost of a row's real backbone, whatever the scale it is trained at."""
    return method_cost(config.backbone.paper, config.method)


def method_cost(model: Geometry, method: Method) -> Cost:
    """The cost of `method` on a backbone of this geometry."""
    tokens = tokens_kept(model, method.tokens)
    layers = vit_layers(model, tokens)
    weights = method.weights
    densities = dict.fromkeys((layer.name for layer in layers), 1.0)
    heads = 1.0
    vectors_removed = 0.0
    if weights is not None and weights.distribution is not None:
        shapes = {layer.name: layer.shape for layer in layers}
        densities = layer_densities(weights.distribution, shapes, 1 - method.sparsity)
    if weights is not None and weights.heads_density is not None and weights.neurons_density is not None:
        hidden = model.embed_dim * model.mlp_ratio
        heads = units_kept(model.num_heads, weights.heads_density) / model.num_heads
        neurons = units_kept(hidden, weights.neurons_density) / hidden
        for layer in layers:
            if layer.name.endswith("qkv"):
                densities[layer.name] = heads
            elif layer.name.endswith(("fc1", "fc2")):
                densities[layer.name] = neurons
        # The biases of removed heads and neurons leave with them.
        vectors_removed = model.depth * (3 * model.embed_dim * (1 - heads) + hidden * (1 - neurons))
    attention = model.depth * 2 * tokens * tokens * model.embed_dim
    products = sum(layer.size * densities[layer.name] * layer.uses for layer in layers)
    # A linear scorer with one output per patch token.
    selector = model.patches * model.embed_dim if method.tokens is not None else 0
    dense = sum(layer.size * layer.uses for layer in vit_layers(model, model.tokens))
    dense += model.depth * 2 * model.tokens**2 * model.embed_dim
    params = sum(layer.size * densities[layer.name] for layer in layers) + _vector_params(model) - vectors_removed
    if method.tokens is not None:
        params += model.embed_dim + 1
    macs = products + attention + selector
    macs_alt = products + attention * heads + selector
    return Cost(
        params_m=params / 1e6,
        macs_g=macs / 1e9,
        flops_saving_pct=100 * (1 - macs / dense),
        flops_saving_alt_pct=100 * (1 - macs_alt / dense),
        is_exact=weights is None or weights.distribution != "global",
    )


def physical_macs_g(model: Geometry, method: Method) -> float:
    """MACs, in 1e9 per image, of the model as it runs: without removed heads, neurons and tokens.

    Unlike the papers' conventions it credits proj's columns of removed heads, and no weight that a mask only sets to
    zero.
    """
    tokens = tokens_kept(model, method.tokens)
    heads = neurons = 1.0
    weights = method.weights
    if weights is not None and weights.heads_density is not None and weights.neurons_density is not None:
        hidden = model.embed_dim * model.mlp_ratio
        heads = units_kept(model.num_heads, weights.heads_density) / model.num_heads
        neurons = units_kept(hidden, weights.neurons_density) / hidden
    macs = 0.0
    for layer in vit_layers(model, tokens):
        share = heads if ".attn." in layer.name else neurons if ".mlp." in layer.name else 1.0
        macs += layer.size * layer.uses * share
    macs += model.depth * 2 * tokens**2 * model.embed_dim * heads
    macs += model.patches * model.embed_dim if method.tokens is not None else 0
    return macs / 1e9


def _vector_params(model: Geometry) -> int:
    """Biases, norms, class token and position embedding: never sparse."""
    dim, hidden = model.embed_dim, model.embed_dim * model.mlp_ratio
    block = 3 * dim + dim + hidden + dim + 4 * dim
    return dim + dim + model.tokens * dim + model.depth * block + 2 * dim + model.num_classes

"""SViTE+ and S2ViTE+: a learned selection of input tokens, trained with the model.

Source: SViTE paper, section 3.3: a linear scorer on the embedded tokens and a straight-through Gumbel top-k. With
`selection=as_released`, dropped tokens are multiplied by zero, so that they still take part in attention through the
biases, and evaluation also samples. With `temperature=rising`, the temperature increases during training, as in the
code until 2022-01-06.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.methods.base import MethodPart
from repro.models.token_dropping import Trace, outside_autocast
from repro.models.token_execution import take
from repro.seeding import stream_seed


class TokenSelector(nn.Module):
    """Keeps `kept` tokens of each image, always including the class token (the first).

    In training, it keeps the patches with the highest score + Gumbel noise. Gradients reach the scorer through the
    straight-through softmax((score + noise) / temperature). In evaluation, `gather` keeps the highest scores, and
    `as_released` samples at temperature 1.
    """

    keep_dense = True  # its weights are not masked

    def __init__(self, embed_dim: int, kept: int, selection: str, temperature: float) -> None:
        super().__init__()
        self.scorer = nn.Linear(embed_dim, 1)
        nn.init.trunc_normal_(self.scorer.weight, std=0.02)
        nn.init.zeros_(self.scorer.bias)
        self.kept, self.selection, self.temperature = kept, selection, temperature
        self.traces: list[Trace] | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (images, tokens, width) to (images, kept, width); as released, all tokens with dropped ones zeroed."""
        patches = tokens[:, 1:]
        with outside_autocast(tokens):
            scores = self.scorer(patches).squeeze(-1).float()
        if self.training or self.selection == "as_released":
            scores = scores - torch.empty_like(scores).exponential_().log()  # Gumbel noise
        selected = scores.topk(self.kept - 1, dim=1).indices.sort(dim=1).values
        if self.traces is not None:
            mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, selected, value=True)
            self.traces.append(Trace(mask, scores))
        if not self.training and self.selection == "gather":  # needs no gradient
            return take(tokens, selected)
        temperature = self.temperature if self.training else 1.0
        soft = torch.softmax(scores / temperature, dim=1)
        if self.selection == "as_released":
            hard = torch.zeros_like(soft).scatter(1, selected, 1.0)
            weight = (hard - soft.detach() + soft).unsqueeze(-1).to(tokens.dtype)
            return torch.cat([tokens[:, :1], patches * weight], dim=1)
        kept = patches.gather(1, selected.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        kept_soft = soft.gather(1, selected)
        kept = kept * (1 - kept_soft.detach() + kept_soft).unsqueeze(-1).to(tokens.dtype)
        return torch.cat([tokens[:, :1], kept], dim=1)


class InputTokenSelector(MethodPart):
    """Puts a `TokenSelector` between the embedding and the first block, and anneals its temperature during training.

    Args:
        model: a timm vision transformer with one class token.
        tokens: number of tokens of one image, class token included.
        kept: number of tokens to keep, class token included; 2 to `tokens`.
        selection: `gather` or `as_released`.
        temperature_start, temperature_end: of the Gumbel softmax, linear over the updates of training; above 0.
        temperature: `falling` from start to end, or `rising` from end to start.
        updates: total number of optimizer updates.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tokens: int,
        kept: int,
        selection: str,
        temperature_start: float,
        temperature_end: float,
        updates: int,
        seed: int,
        temperature: str = "falling",
    ) -> None:
        if temperature == "rising":
            temperature_start, temperature_end = temperature_end, temperature_start
        self.start_temperature, self.end_temperature, self.updates = temperature_start, temperature_end, updates
        self.tokens = tokens
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("selector", seed))
            self.selector = TokenSelector(int(model.embed_dim), kept, selection, temperature_start)  # type: ignore[arg-type]
        model.patch_drop = self.selector  # timm applies this after the position embedding

    def before_update(self, update: int) -> None:
        """Set the temperature of this update."""
        done = (update - 1) / max(1, self.updates - 1)
        self.selector.temperature = self.start_temperature + done * (self.end_temperature - self.start_temperature)

    def state_dict(self) -> dict[str, Any]:
        """Return the temperature, which the metrics of a run resumed after its last update need."""
        return {"temperature": self.selector.temperature}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.selector.temperature = state["temperature"]

    def metrics(self) -> dict[str, float]:
        """Return the share of tokens kept and the temperature."""
        return {"token_keep_rate": self.selector.kept / self.tokens, "temperature": self.selector.temperature}

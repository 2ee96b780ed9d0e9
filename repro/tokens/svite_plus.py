"""SViTE+ and S2ViTE+: a learned selection of input tokens, trained with everything else.

Source: SViTE paper, section 3.3: a linear scorer on the embedded tokens and a straight-through Gumbel top-k. The
released code multiplies dropped tokens by zero, so that they still take part in attention through the biases, and
samples in evaluation too; that is `selection=as_released`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.parts import MethodPart
from repro.seeding import stream_seed
from repro.tokens.dropping import Trace, outside_autocast
from repro.tokens.execution import take


class TokenSelector(nn.Module):
    """Keeps `kept` tokens of each image, the class token (the first) always among them.

    In training the choice is sampled: the patches of highest score + Gumbel noise. Gradients reach the scorer through
    the soft choice softmax((score + noise) / temperature), with the kept tokens multiplied by 1 in value. In
    evaluation `gather` keeps the highest scores; `as_released` samples, at temperature 1.
    """

    keep_dense = True  # its weights get no mask

    def __init__(self, embed_dim: int, kept: int, selection: str, temperature: float) -> None:
        super().__init__()
        self.scorer = nn.Linear(embed_dim, 1)
        nn.init.trunc_normal_(self.scorer.weight, std=0.02)
        nn.init.zeros_(self.scorer.bias)
        self.kept, self.selection, self.temperature = kept, selection, temperature
        self.traces: list[Trace] | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, dim) to (batch, kept, dim); as released: (batch, tokens, dim) with dropped tokens at zero."""
        patches = tokens[:, 1:]
        with outside_autocast(tokens):
            scores = self.scorer(patches).squeeze(-1).float()
        if self.training or self.selection == "as_released":
            scores = scores - torch.empty_like(scores).exponential_().log()  # Gumbel noise
        chosen = scores.topk(self.kept - 1, dim=1).indices.sort(dim=1).values
        if self.traces is not None:
            mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, chosen, value=True)
            self.traces.append(Trace(mask, scores))
        if not self.training and self.selection == "gather":  # nobody asks for the soft choice
            return take(tokens, chosen)
        temperature = self.temperature if self.training else 1.0
        soft = torch.softmax(scores / temperature, dim=1)
        if self.selection == "as_released":
            hard = torch.zeros_like(soft).scatter(1, chosen, 1.0)
            weight = (hard - soft.detach() + soft).unsqueeze(-1).to(tokens.dtype)
            return torch.cat([tokens[:, :1], patches * weight], dim=1)
        kept = patches.gather(1, chosen.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        kept_soft = soft.gather(1, chosen)
        kept = kept * (1 - kept_soft.detach() + kept_soft).unsqueeze(-1).to(tokens.dtype)
        return torch.cat([tokens[:, :1], kept], dim=1)


class InputTokenSelector(MethodPart):
    """Puts a `TokenSelector` between the embedding and the first block, and lowers its temperature over training.

    Args:
        model: a timm vision transformer with one class token.
        tokens: tokens of one image, the class token among them.
        kept: tokens to keep, the class token among them; 2 to `tokens`.
        selection: `gather` or `as_released`.
        temperature_start, temperature_end: of the Gumbel softmax, linear over the training's updates; above 0.
        updates: optimizer updates of the training.
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
    ) -> None:
        if not 2 <= kept <= tokens:
            raise UserError(
                f"method.tokens.kept: {kept} of {tokens} tokens; must be 2 to {tokens}, class token included"
            )
        if min(temperature_start, temperature_end) <= 0:
            raise UserError("method.tokens.temperature_start and temperature_end must be above 0")
        self.start_temperature, self.end_temperature, self.updates = temperature_start, temperature_end, updates
        self.tokens = tokens
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("selector", seed))
            self.selector = TokenSelector(int(model.embed_dim), kept, selection, temperature_start)  # type: ignore[arg-type]
        model.patch_drop = self.selector  # timm's place for dropping tokens, behind the position embedding

    def before_update(self, update: int) -> None:
        """Set the temperature of this update."""
        done = (update - 1) / max(1, self.updates - 1)
        self.selector.temperature = self.start_temperature + done * (self.end_temperature - self.start_temperature)

    def state_dict(self) -> dict[str, Any]:
        """The temperature: a run resumed after its last update is asked for it without another one."""
        return {"temperature": self.selector.temperature}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.selector.temperature = state["temperature"]

    def metrics(self) -> dict[str, float]:
        """Share of tokens kept and the selector's temperature."""
        return {"token_keep_rate": self.selector.kept / self.tokens, "temperature": self.selector.temperature}

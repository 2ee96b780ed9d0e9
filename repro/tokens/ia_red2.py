"""IA-RED2: interpreters that learn by policy gradient which patches an image goes on with (Pan et al., NeurIPS 2021).

Written from the paper's description; docs/methods.md says what it does not state, and what is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.parts import MethodPart
from repro.seeding import stream_seed
from repro.sparsity.ranks import mean_over_ranks
from repro.tokens.curriculum import Curriculum, Moment
from repro.tokens.dropping import DroppingBlocks, attach_droppers
from repro.tokens.interpreter import Interpreter
from repro.tokens.keep_rates import KeepRates


def rewards(right: Tensor, kept_share: Tensor, tau: float, power: float) -> Tensor:
    """What a choice of patches is worth: 1 - kept^power where the prediction is right, -tau where it is wrong.

    Args:
        right: bool (images,).
        kept_share: (images,), in [0, 1].
    """
    return torch.where(right, 1 - kept_share**power, torch.full_like(kept_share, -tau))


def policy_loss(sampled: Tensor, baseline: Tensor, log_probability: Tensor) -> Tensor:
    """Whose gradient is that of minus the expected reward: REINFORCE with the reward of the thresholded choice.

    Args:
        sampled, baseline: (images,), the rewards of both choices.
        log_probability: (images,), of the sampled one, with a gradient.
    """
    return -((sampled - baseline).detach() * log_probability).mean()


class IARED2(MethodPart):
    """Interpreters before groups of blocks, opened one after the other.

    In stage d the interpreters before d are trained and decide by their threshold, those after d let everything pass.
    First interpreter d learns alone, by policy gradient; then the blocks behind it, the last norm and the head learn by
    the recipe's loss, with the patches that the interpreters leave. Everything else is frozen: it has no gradient.

    Args:
        model: a timm vision transformer with one class token.
        tokens: of one image, the class token among them.
        updates: optimizer updates of the training.
        interpreters: how many stages; at most one for each block.
        heads: of an interpreter; the backbone's where it has fewer.
        keep_rates: what an untrained model is timed with (`cost_as_counted`): the share of patches left after each
            stage; `keep_spread` is how far images differ from it, as a share.
        interpreter_share: of a stage's updates, for its interpreter.
        tau, reward_power: see `rewards`.
        execution: see `repro.tokens.execution`.

    Raises `UserError` for more interpreters than blocks, or heads that do not divide the width.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokens: int,
        updates: int,
        seed: int,
        interpreters: int,
        heads: int,
        threshold: float,
        initial_logit: float,
        tau: float,
        reward_power: float,
        interpreter_share: float,
        keep_rates: list[float],
        keep_spread: float,
        execution: str,
        **_: Any,
    ) -> None:
        depth, width = len(model.blocks), int(model.embed_dim)
        heads = min(heads, int(model.blocks[0].attn.num_heads))
        if interpreters > depth:
            raise UserError(f"method.tokens.interpreters={interpreters}: the backbone has {depth} blocks")
        if width % heads:
            raise UserError(f"method.tokens.heads={heads}: does not divide the backbone's width {width}")
        if len(keep_rates) != interpreters:
            raise UserError(f"method.tokens.keep_rates: {len(keep_rates)} for {interpreters} interpreters")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("interpreter", seed))
            made = [Interpreter(width, heads, tokens - 1, threshold, initial_logit) for _ in range(interpreters)]
        self.model: nn.Module = model
        self.blocks: DroppingBlocks = attach_droppers(model, made, tokens - 1, execution)
        self.interpreters = made
        self.curriculum = Curriculum(updates, interpreters, interpreter_share)
        self.tau, self.reward_power = tau, reward_power
        self.planned = tuple(zip(keep_rates, [keep_spread] * interpreters, strict=True))
        self.rates = KeepRates(self.blocks)
        self.moment: Moment | None = None
        self.last: dict[str, Tensor] = {}

    def before_update(self, update: int) -> None:
        """Open the update's stage, and let those parameters alone have a gradient that learn in it."""
        moment = self.curriculum.at(update)
        if moment != self.moment:
            self.moment = moment
            self._open(self.blocks, update)
            learning = {id(parameter) for parameter in self.learning(moment)}
            for parameter in self.model.parameters():
                parameter.requires_grad_(id(parameter) in learning)
        for number, interpreter in enumerate(self.interpreters, start=1):
            interpreter.is_sampling = moment.is_interpreting and number == moment.stage
        self._rewards: list[Tensor] = []

    def learning(self, moment: Moment) -> list[nn.Parameter]:
        """The parameters that learn at a moment."""
        interpreter = self.interpreters[moment.stage - 1]
        if moment.is_interpreting:
            return list(interpreter.parameters())
        model: Any = self.model
        behind = list(self.blocks)[self.blocks.starts[moment.stage - 1] :]
        return [parameter for module in (*behind, model.norm, model.head) for parameter in module.parameters()]

    def objective(
        self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, criterion: nn.Module
    ) -> Tensor | None:
        """The policy's loss while an interpreter learns; None where the recipe's is meant."""
        assert self.moment is not None
        if not self.moment.is_interpreting:
            return None
        interpreter = self.interpreters[self.moment.stage - 1]
        # One pass for both choices: up to this stage they are the same.
        guesses = forward(images).argmax(1)
        classes = labels if labels.dim() == 1 else labels.argmax(1)  # of mixed images, the larger part's
        assert interpreter.shares is not None
        assert interpreter.log_probability is not None
        sampled, greedy = (
            rewards(some == classes, share, self.tau, self.reward_power)
            for some, share in zip(guesses.chunk(2), interpreter.shares, strict=True)
        )
        self._rewards.append(torch.stack([sampled.mean(), greedy.mean(), *interpreter.shares.mean(1)]).detach())
        return policy_loss(sampled, greedy, interpreter.log_probability)

    def after_step(self, update: int) -> None:
        """Note what the choices of this update were worth, over all ranks; sample no more."""
        if self._rewards:
            found = mean_over_ranks(torch.stack(self._rewards).mean(0))
            names = ("reward_sampled", "reward_thresholded", "kept_sampled", "kept_thresholded")
            self.last = dict(zip(names, found, strict=True))
        for interpreter in self.interpreters:
            interpreter.is_sampling = False

    def constrain(self, model: nn.Module) -> None:
        """Open the same stages in another copy of the model."""
        copy: Any = model
        copy.blocks.open_stages = self.blocks.open_stages

    def is_at_target(self, update: int) -> bool:
        """Only with all stages open and all interpreters trained: from then on the same patches are kept."""
        return self.curriculum.is_final(update)

    def before_evaluation(self) -> None:
        """Begin to count what is kept."""
        self.rates.begin()

    def evaluation(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Keep rates of the evaluation."""
        return self.rates.measured(total)

    def cost_as_counted(self) -> None:
        """Make the untrained interpreters keep what the row is planned with."""
        for interpreter, (rate, spread) in zip(self.interpreters, self.planned, strict=True):
            interpreter.force(rate, spread)

    def metrics(self) -> dict[str, float]:
        """The open stage, and the rewards and keep rates of the last update of an interpreter."""
        return {
            "stage": float(self.blocks.open_stages),
            **{name: float(value) for name, value in self.last.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """What the metrics of a resumed run need; all else follows from the update's number."""
        return {"last": self.last, "open_stages": self.blocks.open_stages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.last = state["last"]
        self.blocks.open_stages = state["open_stages"]

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the first update one stage is open: what is evaluated then is what the first update begins with."""
        self._open(self.blocks, 1)

    def _open(self, blocks: DroppingBlocks, update: int) -> None:
        blocks.open_stages = self.curriculum.at(update).stage

"""IA-RED2: interpreters that learn by policy gradient which patches to keep (Pan et al., NeurIPS 2021).

Written from the paper's description; docs/methods.md lists our choices where it leaves them open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repro.distributed import all_reduce_mean
from repro.methods.tokens.curriculum import Curriculum, Phase
from repro.methods.tokens.dropping_part import DroppingPart
from repro.methods.tokens.interpreter import Interpreter
from repro.seeding import stream_seed


def rewards(right: Tensor, kept_share: Tensor, tau: float, power: float) -> Tensor:
    """Return the reward of a selection: 1 - kept_share^power if the prediction is correct, -tau if it is wrong.

    Args:
        right: whether predictions are correct, bool (images,).
        kept_share: share of patches kept, (images,), in [0, 1].
    """
    return torch.where(right, 1 - kept_share**power, torch.full_like(kept_share, -tau))


def policy_loss(sampled: Tensor, baseline: Tensor, log_probability: Tensor) -> Tensor:
    """Return a loss whose gradient is that of the negative expected reward (REINFORCE with a self-critical baseline).

    Args:
        sampled, baseline: rewards of the sampled and the thresholded selection, (images,).
        log_probability: of the sampled selection, (images,), with a gradient.
    """
    return -((sampled - baseline).detach() * log_probability).mean()


class IARED2(DroppingPart):
    """Interpreters before groups of blocks, trained one after the other.

    In stage d, the interpreters before d are already trained and select by their threshold, and those after d keep all
    patches. First, only interpreter d is trained, by policy gradient. Then the blocks after it, the last norm and the
    head are trained with the recipe's loss on the selected patches. All other parameters are frozen.

    Args:
        model: a timm vision transformer with one class token.
        tokens: number of tokens of one image, class token included.
        updates: total number of optimizer updates.
        interpreters: number of stages; at most one per block.
        heads: heads of an interpreter, at most those of the backbone.
        keep_rates: planned share of patches kept after each stage, for timing an untrained model
            (`apply_planned_cost`); `keep_spread` is the relative spread over images.
        interpreter_share: share of a stage's updates that train its interpreter.
        tau, reward_power: see `rewards`.
        execution: see `repro.models.token_execution`.
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
        width = int(model.embed_dim)
        heads = min(heads, int(model.blocks[0].attn.num_heads))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("interpreter", seed))
            droppers = [Interpreter(width, heads, tokens - 1, threshold, initial_logit) for _ in range(interpreters)]
        self.model: nn.Module = model
        super().__init__(model, droppers, tokens - 1, execution)
        self.interpreters = droppers
        self.curriculum = Curriculum(updates, interpreters, interpreter_share)
        self.tau, self.reward_power = tau, reward_power
        self.planned_keep_rates = tuple(zip(keep_rates, [keep_spread] * interpreters, strict=True))
        self.phase: Phase | None = None
        self.last_rewards: dict[str, Tensor] = {}

    def before_update(self, update: int) -> None:
        """Open the stage of this update, and freeze all parameters that it does not train."""
        phase = self.curriculum.phase_at(update)
        if phase != self.phase:
            self.phase = phase
            self.blocks.open_stages = phase.stage
            trained = {id(parameter) for parameter in self.trained_parameters(phase)}
            for parameter in self.model.parameters():
                parameter.requires_grad_(id(parameter) in trained)
        for number, interpreter in enumerate(self.interpreters, start=1):
            interpreter.is_sampling = phase.trains_interpreter and number == phase.stage
        self._rewards: list[Tensor] = []

    def trained_parameters(self, phase: Phase) -> list[nn.Parameter]:
        """Return the parameters that a phase trains."""
        interpreter = self.interpreters[phase.stage - 1]
        if phase.trains_interpreter:
            return list(interpreter.parameters())
        model: Any = self.model
        blocks = list(self.blocks)[self.blocks.starts[phase.stage - 1] :]
        return [parameter for module in (*blocks, model.norm, model.head) for parameter in module.parameters()]

    def objective(
        self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, criterion: nn.Module
    ) -> Tensor | None:
        """Return the policy loss if an interpreter is trained, None otherwise."""
        assert self.phase is not None
        if not self.phase.trains_interpreter:
            return None
        interpreter = self.interpreters[self.phase.stage - 1]
        # One forward pass serves both selections, which do not differ before this stage.
        predictions = forward(images).argmax(1)
        classes = labels if labels.dim() == 1 else labels.argmax(1)  # of mixed images, the class with the larger share
        assert interpreter.kept_shares is not None
        assert interpreter.log_probability is not None
        sampled, greedy = (
            rewards(predicted == classes, share, self.tau, self.reward_power)
            for predicted, share in zip(predictions.chunk(2), interpreter.kept_shares, strict=True)
        )
        self._rewards.append(torch.stack([sampled.mean(), greedy.mean(), *interpreter.kept_shares.mean(1)]).detach())
        return policy_loss(sampled, greedy, interpreter.log_probability)

    def after_step(self, update: int) -> None:
        """Record the mean rewards of this update over all ranks, and stop sampling."""
        if self._rewards:
            means = all_reduce_mean(torch.stack(self._rewards).mean(0))
            names = ("reward_sampled", "reward_thresholded", "kept_sampled", "kept_thresholded")
            self.last_rewards = dict(zip(names, means, strict=True))
        for interpreter in self.interpreters:
            interpreter.is_sampling = False

    def constrain(self, model: nn.Module) -> None:
        """Open the same stages in a copy of the model."""
        copy: Any = model
        copy.blocks.open_stages = self.blocks.open_stages

    def is_at_target(self, update: int) -> bool:
        """Whether all stages are open and all interpreters trained."""
        return self.curriculum.is_final(update)

    def apply_planned_cost(self) -> None:
        """Make untrained interpreters keep the planned share of patches."""
        for interpreter, (rate, spread) in zip(self.interpreters, self.planned_keep_rates, strict=True):
            interpreter.force_keep_rate(rate, spread)

    def metrics(self) -> dict[str, float]:
        """Return the open stage, and the rewards and keep rates of the last update that trained an interpreter."""
        return {
            "stage": float(self.blocks.open_stages),
            **{name: float(value) for name, value in self.last_rewards.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what the metrics of a resumed run need. Everything else follows from the update number."""
        return {"last": self.last_rewards, "open_stages": self.blocks.open_stages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.last_rewards = state["last"]
        self.blocks.open_stages = state["open_stages"]

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Open the first stage, so that an evaluation before the first update sees the same model as that update."""
        self.blocks.open_stages = self.curriculum.phase_at(1).stage

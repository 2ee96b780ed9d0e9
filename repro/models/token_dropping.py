"""Token dropping in stages: before each group of blocks, a `Dropper` decides which patches of an image to keep.

Dropped patches never come back, and the class token always stays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from repro.counting.keep_rates import stage_starts
from repro.errors import UserError
from repro.models.token_execution import EXECUTIONS, gather, run_padded


def outside_autocast(values: Tensor) -> AbstractContextManager[Any]:
    """Disable autocast while tokens are scored.

    bfloat16 rounds scores to 8 bits, which creates ties between patches. Without autocast, as in a model cast to
    bfloat16, this does nothing.
    """
    device = values.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@dataclass(frozen=True)
class Decision:
    """The decision of a dropper on a batch.

    Attributes:
        keep: bool (images, patches): the valid patches to keep.
        scores: float (images, patches): the scores behind the decision; undefined for padding.
        alternative: a second decision. The batch is then run twice, first with `keep`.
    """

    keep: Tensor
    scores: Tensor
    alternative: Tensor | None = None


# Takes blocks, values and valid as in `repro.models.token_execution`, and positions of patches in the image,
# (images, n - 1).
RunAtPositions = Callable[[Sequence[Any], Tensor, Tensor | None, Tensor], Tensor]


class Dropper(nn.Module, ABC):
    """Decides which patches to keep before a group of blocks. Its parameters are part of the model."""

    keep_dense = True  # its weights are not masked

    @abstractmethod
    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        """Decide which patches to keep.

        Args:
            values: (images, n, width), the class token first.
            valid: bool (images, n - 1): patches that are not padding.
            block: the next transformer block.
        """


def keep_best(scores: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """Select the valid patches with the highest scores, and the first ones of equal scores.

    Args:
        scores, valid: (images, patches), float and bool.
        counts: how many patches to select, or all valid ones if there are fewer: int64, one for all images, or
            (images, 1).

    Returns a bool tensor (images, patches).
    """
    masked = scores.masked_fill(~valid, -torch.inf)
    # ONNX has no stable sort, but its TopK also prefers the first of equal values.
    if torch.compiler.is_exporting():
        order = masked.topk(masked.shape[1], dim=1).indices
    else:
        order = masked.argsort(dim=1, descending=True, stable=True)
    positions = torch.arange(order.shape[1], device=order.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, positions)
    return valid & (ranks < counts)


@dataclass(frozen=True)
class Trace:
    """The decision of one stage in one forward pass, by the patches' positions in the image.

    Attributes:
        kept: bool (images, patches).
        scores: float32 (images, patches); NaN for patches that were dropped before.
    """

    kept: Tensor
    scores: Tensor


class DroppingBlocks(nn.Sequential):
    """The blocks of a timm vision transformer, with a dropper before each group of them.

    Attributes:
        open_stages: number of active droppers, from the first; the others keep all patches.
        execution: `masked` keeps all patches and hides dropped ones from attention (a reference that saves nothing);
            the others gather, see `repro.models.token_execution`.
        run_at_positions: runs blocks whose attention depends on token positions; None to run them by `execution`.
        keep_rate_sums: sums of the share of patches kept and of its square over the images of an evaluation, float64
            (stages, 2).
        image_count: number of these images.
        is_counting: whether to count images of an evaluation, see `reset_counts`.
        checkpointing: whether to recompute blocks in the backward pass (`repro.models.activation_checkpointing`).
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        droppers: Sequence[Dropper],
        patches: int,
        execution: str,
        run_at_positions: RunAtPositions | None = None,
    ) -> None:
        super().__init__(*blocks)
        self.run_at_positions = run_at_positions
        self.droppers = tuple(droppers)  # registered in the model, not here, so that its blocks keep their names
        self.starts = stage_starts(len(blocks), len(droppers))
        self.open_stages, self.patches, self.execution = len(droppers), patches, execution
        self.checkpointing = False
        self.traces: list[Trace] | None = None
        self.reset_counts()
        self.is_counting = False  # predictions outside of an evaluation need no counts

    def reset_counts(self) -> None:
        """Reset the counts of keep rates, and start counting."""
        self.is_counting = True
        self.keep_rate_sums = torch.zeros(len(self.droppers), 2, dtype=torch.float64)
        self.image_count = 0

    def forward(self, values: Tensor) -> Tensor:
        """Map (images, 1 + patches, width) to (images, 1 + largest number of patches kept, width)."""
        blocks = list(self)
        valid: Tensor | None = None
        positions = torch.arange(self.patches, device=values.device).expand(values.shape[0], -1)
        values = self._run(blocks[: self.starts[0]], values, None, positions)
        for stage, (dropper, start) in enumerate(zip(self.droppers, self.starts, strict=True)):
            end = [*self.starts, len(blocks)][stage + 1]
            if stage < self.open_stages:
                present = values.new_ones(positions.shape, dtype=torch.bool) if valid is None else valid
                decision: Decision = dropper(values, present, blocks[start])
                keep = decision.keep & present
                if decision.alternative is not None:
                    keep = torch.cat([keep, decision.alternative & present])
                    values, positions = torch.cat([values, values]), torch.cat([positions, positions])
                self._record(stage, keep, decision.scores, present, positions)
                if self.execution == "masked":
                    valid = keep
                else:
                    values, valid, selected = gather(values, keep)
                    positions = positions.gather(1, selected)
            values = self._run(blocks[start:end], values, valid, positions)
        return values

    def _run(self, blocks: Sequence[nn.Module], values: Tensor, valid: Tensor | None, positions: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            for block in blocks:
                values = checkpoint(self._run_blocks, [block], values, valid, positions, use_reentrant=False)
            return values
        return self._run_blocks(blocks, values, valid, positions) if blocks else values

    def _run_blocks(
        self, blocks: Sequence[nn.Module], values: Tensor, valid: Tensor | None, positions: Tensor
    ) -> Tensor:
        if self.run_at_positions is not None:
            return self.run_at_positions(blocks, values, valid, positions)
        return EXECUTIONS.get(self.execution, run_padded)(blocks, values, valid)

    def _record(self, stage: int, keep: Tensor, scores: Tensor, present: Tensor, positions: Tensor) -> None:
        if self.training or torch.compiler.is_exporting():  # an exported graph has no state
            return
        if self.is_counting:
            share = keep.sum(1).double() / self.patches
            self.keep_rate_sums = self.keep_rate_sums.to(share.device)
            self.keep_rate_sums[stage] += torch.stack([share.sum(), (share**2).sum()])
            if stage == 0:
                self.image_count += len(keep)
        if self.traces is not None:
            blank = torch.zeros(len(keep), self.patches, dtype=torch.bool, device=keep.device)
            # Padding has positions of patches that were dropped before, for which False and NaN are correct.
            kept = blank.scatter(1, positions, keep)
            valid_scores = scores.float().masked_fill(~present, float("nan"))
            by_position = torch.full(blank.shape, float("nan"), device=keep.device).scatter(1, positions, valid_scores)
            self.traces.append(Trace(kept, by_position))


def attach_droppers(model: Any, droppers: Sequence[Dropper], patches: int, execution: str) -> DroppingBlocks:
    """Put a dropper before each group of a timm vision transformer's blocks, in place, and return the blocks."""
    model.droppers = nn.ModuleList(droppers)
    run_at_positions = getattr(model, "run_at_positions", None)
    model.blocks = DroppingBlocks(list(model.blocks), droppers, patches, execution, run_at_positions)
    return model.blocks  # type: ignore[no-any-return]


def mask_instead_of_dropping(model: nn.Module) -> bool:
    """Make a model mask patches instead of dropping them, in place: the same logits, with static shapes.

    Return whether the model drops tokens. Raises `UserError` if its blocks cannot mask.
    """
    dropping = [module for module in model.modules() if isinstance(module, DroppingBlocks)]
    for blocks in dropping:
        if blocks.run_at_positions is not None:
            raise UserError(
                "this model attends over the remaining tokens of each clip, whose number a graph cannot know; "
                "leave --format out"
            )
        blocks.execution = "masked"
    return bool(dropping)


def drop_instead_of_masking(model: nn.Module) -> None:
    """Make a model that masks patches drop them, in place: the same logits."""
    for blocks in model.modules():
        if isinstance(blocks, DroppingBlocks) and blocks.execution == "masked":
            blocks.execution = "padded"


@contextmanager
def tracing(model: nn.Module) -> Iterator[list[Trace]]:
    """Record the decisions of a model in evaluation mode: one `Trace` per stage and forward pass.

    Modules that drop tokens have an attribute `traces`, and append to it if it is a list. The list stays empty for a
    model that keeps all tokens.
    """
    droppers: list[Any] = [module for module in model.modules() if hasattr(module, "traces")]
    traces: list[Trace] = []
    for dropper in droppers:
        dropper.traces = traces
    try:
        yield traces
    finally:
        for dropper in droppers:
            dropper.traces = None

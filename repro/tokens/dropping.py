"""Token dropping in stages: before each group of blocks something decides which patches an image goes on with.

Dropped patches never come back; the class token always stays. The mechanism is here; who decides is a `Dropper`.
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

from repro.errors import UserError
from repro.layer import stage_starts
from repro.tokens.execution import EXECUTIONS, gather, run_padded


def outside_autocast(values: Tensor) -> AbstractContextManager[Any]:
    """Where tokens are scored: mixed precision is for what they are worth, not for which of them stay.

    bfloat16 rounds a score to 8 bits, so that patches tie; and it rounds a product of float32 queries and keys just the
    same. Nothing where there is no autocast: in a model that is all bfloat16, scores are what its weights are.
    """
    device = values.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@dataclass(frozen=True)
class Decision:
    """What a dropper says of a batch.

    Attributes:
        keep: bool (images, patches): which stay, of those that are there.
        scores: float (images, patches): by what it decided; meaningless where no patch is.
        second: another choice for the same images. The batch then goes on twice, the images of `keep` first.
    """

    keep: Tensor
    scores: Tensor
    second: Tensor | None = None


# Blocks, values and valid as `repro.tokens.execution` has them, and the patches' places in the image, (images, n - 1).
RunPlaced = Callable[[Sequence[Any], Tensor, Tensor | None, Tensor], Tensor]


class Dropper(nn.Module, ABC):
    """Decides before a group of blocks. A module, so that what it has learnt is saved with the model."""

    keep_dense = True  # its weights get no mask

    @abstractmethod
    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        """Which patches stay.

        Args:
            values: (images, n, width), the class token first.
            valid: bool (images, n - 1): the patches that are there.
            block: the transformer block that comes next.
        """


@dataclass(frozen=True)
class Trace:
    """One stage of one forward pass, by the patches' places in the image.

    Attributes:
        kept: bool (images, patches): those that went on.
        scores: float32 (images, patches): what the dropper scored them; NaN for those that were gone before.
    """

    kept: Tensor
    scores: Tensor


class DroppingBlocks(nn.Sequential):
    """The blocks of a timm vision transformer, with a dropper before each group of them.

    Attributes:
        open_stages: how many droppers are at work, from the first; the others let everything pass.
        execution: `masked` keeps all patches and only hides the dropped ones (a reference: it saves nothing); the
            others gather, see `repro.tokens.execution`.
        run_placed: how blocks run whose attention is not of every token to every other one: it is told the tokens'
            places, too. None: by `execution`.
        seen: float64 (stages, 2): sums over the images of an evaluation of the share of patches kept and its square.
        images_seen: how many images that were.
        is_counting: whether images of an evaluation are counted, see `count`.
        checkpointing: whether blocks are computed again for the backward pass, see `repro.models.checkpointing`.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        droppers: Sequence[Dropper],
        patches: int,
        execution: str,
        run_placed: RunPlaced | None = None,
    ) -> None:
        super().__init__(*blocks)
        self.run_placed = run_placed
        self.droppers = tuple(droppers)  # not registered here: they belong to the model, beside its blocks
        self.starts = stage_starts(len(blocks), len(droppers))
        self.open_stages, self.patches, self.execution = len(droppers), patches, execution
        self.checkpointing = False
        self.traces: list[Trace] | None = None
        self.count()
        self.is_counting = False  # until somebody asks: it takes time that a prediction has no use for

    def count(self) -> None:
        """Begin to count keep rates, from nothing."""
        self.is_counting = True
        self.seen = torch.zeros(len(self.droppers), 2, dtype=torch.float64)
        self.images_seen = 0

    def forward(self, values: Tensor) -> Tensor:
        """(images, 1 + patches, width) to (images, 1 + those left in the fullest image, width)."""
        every = list(self)
        valid: Tensor | None = None
        places = torch.arange(self.patches, device=values.device).expand(values.shape[0], -1)
        values = self._run(every[: self.starts[0]], values, None, places)
        for stage, (dropper, start) in enumerate(zip(self.droppers, self.starts, strict=True)):
            end = [*self.starts, len(every)][stage + 1]
            if stage < self.open_stages:
                there = values.new_ones(places.shape, dtype=torch.bool) if valid is None else valid
                decision: Decision = dropper(values, there, every[start])
                keep = decision.keep & there
                if decision.second is not None:
                    keep = torch.cat([keep, decision.second & there])
                    values, places = torch.cat([values, values]), torch.cat([places, places])
                self._note(stage, keep, decision.scores, there, places)
                if self.execution == "masked":
                    valid = keep
                else:
                    values, valid, chosen = gather(values, keep)
                    places = places.gather(1, chosen)
            values = self._run(every[start:end], values, valid, places)
        return values

    def _run(self, blocks: Sequence[nn.Module], values: Tensor, valid: Tensor | None, places: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            for block in blocks:
                values = checkpoint(self._through, [block], values, valid, places, use_reentrant=False)
            return values
        return self._through(blocks, values, valid, places) if blocks else values

    def _through(self, blocks: Sequence[nn.Module], values: Tensor, valid: Tensor | None, places: Tensor) -> Tensor:
        if self.run_placed is not None:
            return self.run_placed(blocks, values, valid, places)
        return EXECUTIONS.get(self.execution, run_padded)(blocks, values, valid)

    def _note(self, stage: int, keep: Tensor, scores: Tensor, there: Tensor, places: Tensor) -> None:
        if self.training or torch.compiler.is_exporting():  # a graph has no memory of its images
            return
        if self.is_counting:
            share = keep.sum(1).double() / self.patches
            self.seen = self.seen.to(share.device)
            self.seen[stage] += torch.stack([share.sum(), (share**2).sum()])
            if stage == 0:
                self.images_seen += len(keep)
        if self.traces is not None:
            blank = torch.zeros(len(keep), self.patches, dtype=torch.bool, device=keep.device)
            kept = blank.scatter(1, places, keep)
            gone = scores.float().masked_fill(~there, float("nan"))
            by_place = torch.full(blank.shape, float("nan"), device=keep.device).scatter(1, places, gone)
            # Padded places point at patches that were dropped before, so they may only write what those are.
            self.traces.append(Trace(kept, by_place))


def attach_droppers(model: Any, droppers: Sequence[Dropper], patches: int, execution: str) -> DroppingBlocks:
    """Put droppers between the groups of a timm vision transformer's blocks, in place; returns its blocks."""
    model.droppers = nn.ModuleList(droppers)
    run_placed = getattr(model, "run_placed", None)
    model.blocks = DroppingBlocks(list(model.blocks), droppers, patches, execution, run_placed)
    return model.blocks  # type: ignore[no-any-return]


def hide_instead_of_dropping(model: nn.Module) -> bool:
    """Let a model keep all patches and only hide those that it would drop: the same logits, by shapes that no image
    changes. In place; returns whether anything has changed.

    Raises `UserError` where blocks run over the tokens that are left in a way of their own.
    """
    dropping = [module for module in model.modules() if isinstance(module, DroppingBlocks)]
    for blocks in dropping:
        if blocks.run_placed is not None:
            raise UserError(
                "this model attends over whichever tokens are left of each clip: how many those are no graph can say "
                "beforehand; leave --format out"
            )
        blocks.execution = "masked"
    return bool(dropping)


def drop_instead_of_hiding(model: nn.Module) -> None:
    """Let a model that only hides dropped patches gather those that stay, in place: the same logits."""
    for blocks in model.modules():
        if isinstance(blocks, DroppingBlocks) and blocks.execution == "masked":
            blocks.execution = "padded"


@contextmanager
def tracing(model: nn.Module) -> Iterator[list[Trace]]:
    """Within the block, what a model in evaluation mode keeps and why: one `Trace` a stage and forward pass.

    Whoever drops tokens takes part by having `traces` and, where that is a list, adding to it. Empty for a model that
    keeps all.
    """
    droppers: list[Any] = [module for module in model.modules() if hasattr(module, "traces")]
    found: list[Trace] = []
    for dropper in droppers:
        dropper.traces = found
    try:
        yield found
    finally:
        for dropper in droppers:
            dropper.traces = None

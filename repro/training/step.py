"""One optimizer update: all that happens on the device between two updates. Knows no config, data set or record.

Nothing in it waits for the device: losses are added up where they are, and what the host decides it knows already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from repro.models.checkpointing import checkpoint_activations
from repro.models.compiling import compile_blocks, eager_where_watched
from repro.seeding import seeded, stream_seed
from repro.training.distributed import World
from repro.training.precision import attention, autocast
from repro.training.state import TrainingState


class Step:
    """The update of one training, over `accumulate` micro-batches of this rank.

    Args:
        amp: `none` or `bfloat16`, see `repro.training.precision`.
        clip_grad_norm: largest norm of all gradients; None leaves them.
        seed: the run's, for what is drawn in an update.
        compiled: let torch compile the blocks. The same arithmetic, rounded in another order.
        checkpointing: keep only what goes into each block and compute the rest again for the backward pass. The same
            numbers, bit for bit.

    Raises `UserError` where the model cannot be checkpointed, or there is nothing here to compile with.
    """

    def __init__(
        self,
        state: TrainingState,
        world: World,
        *,
        amp: str,
        clip_grad_norm: float | None,
        accumulate: int,
        seed: int,
        compiled: bool = False,
        checkpointing: bool = False,
    ) -> None:
        self.state, self.world = state, world
        self.amp, self.clip_grad_norm, self.accumulate, self.seed = amp, clip_grad_norm, accumulate, seed
        # The EMA's copy has been made before: it is evaluated only, as it is.
        if checkpointing:
            checkpoint_activations(state.model)
        self.compiled = compiled
        if compiled:
            compile_blocks(state.model, world.device)
        # A GPU's convolutions want the channels of a pixel side by side; the images' layout is that of all after it.
        self._layout = torch.channels_last if world.device.type == "cuda" else torch.preserve_format
        self._learning: list[bool] = []
        self.wrap()

    def wrap(self) -> None:
        """Make the model the ranks' common one again where other parameters learn than before: DDP counts on them."""
        learning = [parameter.requires_grad for parameter in self.state.model.parameters()]
        if learning != self._learning:
            self._wrapped = self.state.model  # what was there lets go of the gradients first
            self._wrapped, self._learning = self.world.wrap(self.state.model), learning

    def run(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """The next update of the state, over the whole global batch, at the learning rate that has been set.

        Raises `NotANumber` where masks would be chosen by what is none.
        """
        state, training = self.state, self.state.training
        update = state.update + 1
        training.optimizer.zero_grad(set_to_none=True)
        with self.seeded("update", update):
            for part in state.parts:
                part.before_update(update)
            self.wrap()
            state.loss_sum += self.backward(batches)
        state.loss_updates += 1
        for part in state.parts:
            part.after_backward(update)
        if self.clip_grad_norm:
            nn.utils.clip_grad_norm_(state.model.parameters(), self.clip_grad_norm)
        training.optimizer.step()
        self.world.average_batch_norms(state.model)
        state.update = update
        for part in state.parts:
            part.after_step(update)
        if training.ema is not None:
            training.ema.update(state.model)

    def backward(self, batches: Iterator[tuple[Tensor, Tensor]], updates: int = 1) -> Tensor:
        """Add the gradient of the mean loss over `updates` global batches to the parameters'; returns that loss."""
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        micros = updates * self.accumulate
        watched = eager_where_watched(self.state.model) if self.compiled else nullcontext()
        with watched, attention(self.amp, self.world.device):
            for micro in range(micros):
                with self._synchronised(micro == micros - 1):
                    loss = self._loss(*next(batches)) / micros
                    loss.backward()
                total += loss.detach()  # on the device: reading it here would stall a GPU
        return total

    @contextmanager
    def seeded(self, purpose: str, number: int) -> Iterator[None]:
        """Random draws that depend on what they are for, on every device, and on the rank."""
        names = (purpose, self.seed, number, self.world.rank)
        with seeded(*names):
            if self.world.device.type == "cuda":
                torch.cuda.manual_seed(stream_seed(*names))
            yield

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        training = self.state.training
        layout = self._layout if images.dim() == 4 else torch.preserve_format
        images = images.to(self.world.device, non_blocking=True, memory_format=layout)
        labels = labels.to(self.world.device, non_blocking=True)
        if training.mixup is not None:
            images, labels = training.mixup(images, labels)
        with autocast(self.amp, self.world.device):
            for part in self.state.parts:
                loss = part.objective(self._wrapped, images, labels, training.loss)
                if loss is not None:
                    return loss
            recipes: Tensor = training.loss(self._wrapped(images), labels)
        return recipes

    def _synchronised(self, is_last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged over ranks once an update, with its last micro-batch."""
        if isinstance(self._wrapped, DistributedDataParallel) and not is_last:
            return self._wrapped.no_sync()
        return nullcontext()

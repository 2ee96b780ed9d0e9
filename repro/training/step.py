"""One optimizer update: everything that happens on the device. It uses no config, data set or record.

It never synchronizes with the device: losses are summed there, and the host decides based on what it already has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from repro.distributed import World
from repro.models.activation_checkpointing import checkpoint_activations
from repro.models.compiling import compile_blocks, eager_if_hooked
from repro.models.precision import attention, autocast
from repro.seeding import preserved_generators, seed_generators, stream_seed
from repro.training.state import TrainingState


class Step:
    """The optimizer update of a run, over `accumulate` micro-batches of this rank.

    Args:
        amp: `none` or `bfloat16`, see `repro.models.precision`.
        clip_grad_norm: maximum total norm of the gradients; None disables clipping.
        seed: the seed of the run, for the random draws of an update.
        compiled: whether to compile the blocks. The arithmetic is the same, but sums are rounded in another order.
        checkpointing: whether to store only the inputs of each block, and to recompute the rest in the backward pass
            bit for bit.

    Raises `UserError` if this machine has no compiler.
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
        # The EMA has already copied the model: its copy is only evaluated, and stays unchanged.
        if checkpointing:
            checkpoint_activations(state.model)
        self.compiled = compiled
        if compiled:
            compile_blocks(state.model, world.device)
        # Convolutions on a GPU are faster in channels-last, and activations inherit the layout of the images.
        self._layout = torch.channels_last if world.device.type == "cuda" else torch.preserve_format
        self._trainable: list[bool] = []
        self.wrap()

    def wrap(self) -> None:
        """Wrap the model in DDP, and again whenever the trainable parameters change: DDP fixes them at construction."""
        if self.world.size == 1:  # for a small model, listing the parameters takes longer than the optimizer
            self._wrapped = self.state.model
            return
        trainable = [parameter.requires_grad for parameter in self.state.model.parameters()]
        if trainable != self._trainable:
            self._wrapped = self.state.model  # drop the old wrapper first: it holds references to the gradients
            self._wrapped, self._trainable = self.world.wrap(self.state.model), trainable

    def run(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Run the next update over the whole global batch, at the current learning rate.

        This leaves the global generators seeded by the update; a caller that draws from them afterwards preserves them
        once per epoch.

        Raises `NotANumber` if masks would be selected based on values that are NaN.
        """
        state, optimization = self.state, self.state.optimization
        update = state.update + 1
        optimization.optimizer.zero_grad(set_to_none=True)
        self._seed("update", update)
        for part in state.parts:
            part.before_update(update)
        self.wrap()
        state.loss_sum += self.backward(batches)
        state.loss_updates += 1
        for part in state.parts:
            part.after_backward(update)
        if self.clip_grad_norm:
            nn.utils.clip_grad_norm_(state.model.parameters(), self.clip_grad_norm)
        optimization.optimizer.step()
        self.world.average_batch_norms(state.model)
        state.update = update
        for part in state.parts:
            part.after_step(update)
        if optimization.ema is not None:
            optimization.ema.update(state.model)

    def backward(self, batches: Iterator[tuple[Tensor, Tensor]], updates: int = 1) -> Tensor:
        """Accumulate the gradient of the mean loss over `updates` global batches and return that loss."""
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        micro_batches = updates * self.accumulate
        watched = eager_if_hooked(self.state.model) if self.compiled else nullcontext()
        with watched, attention(self.amp, self.world.device):
            for number in range(micro_batches):
                with self._gradient_sync(is_last=number == micro_batches - 1):
                    loss = self._loss(*next(batches))
                    if micro_batches > 1:
                        loss = loss / micro_batches
                    loss.backward()
                total += loss.detach()  # stays on the device: reading it here would stall a GPU
        return total

    @contextmanager
    def seeded(self, purpose: str, number: int) -> Iterator[None]:
        """Seed all random draws, on host and device, with (purpose, run, number, rank)."""
        with preserved_generators():
            self._seed(purpose, number)
            yield

    def _seed(self, purpose: str, number: int) -> None:
        names = (purpose, self.seed, number, self.world.rank)
        seed_generators(*names)
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(stream_seed(*names))

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        optimization = self.state.optimization
        layout = self._layout if images.dim() == 4 else torch.preserve_format
        images = images.to(self.world.device, non_blocking=True, memory_format=layout)
        labels = labels.to(self.world.device, non_blocking=True)
        if optimization.mixup is not None:
            images, labels = optimization.mixup(images, labels)
        with autocast(self.amp, self.world.device):
            for part in self.state.parts:
                objective = part.objective(self._wrapped, images, labels, optimization.loss)
                if objective is not None:
                    return objective
            loss: Tensor = optimization.loss(self._wrapped(images), labels)
        return loss

    def _gradient_sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Average gradients over ranks once per update, in the backward pass of its last micro-batch."""
        if isinstance(self._wrapped, DistributedDataParallel) and not is_last:
            return self._wrapped.no_sync()
        return nullcontext()

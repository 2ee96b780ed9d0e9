"""Training setups as plain values, so that they can be built on a machine with only torch and timm.

`case_of` creates one from a config; `to_json` and `from_json` transfer it to a machine without Hydra.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from repro.counting.layers import DenseModel, Layer
from repro.counting.schedule import GradualSchedule, Length, UpdateSchedule
from repro.distributed import World
from repro.methods.base import attach
from repro.models.compiling import compile_blocks
from repro.models.vit import build_vit
from repro.training.recipe import build_optimization
from repro.training.state import TrainingState
from repro.training.step import Step

if TYPE_CHECKING:
    from repro.config import Config

_CARRIED = {kind.__name__: kind for kind in (UpdateSchedule, GradualSchedule, DenseModel, Layer)}


@dataclass(frozen=True)
class Case:
    """The training setup of a vision transformer.

    Attributes:
        geometry, recipe: fields of `repro.counting.geometry.ViT` and `repro.config.Recipe`, with `peak_lr`.
        parts: the class of each part of the method, and its arguments.
        length: updates per epoch, epochs, global batch.
        pace: updates per published iteration.
        macs_g: MACs of one image's forward pass through the dense model, in 1e9.
    """

    name: str
    geometry: Mapping[str, Any]
    recipe: Mapping[str, Any]
    parts: tuple[tuple[str, Mapping[str, Any]], ...]
    length: Length
    pace: float
    macs_g: float

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        size = self.geometry["image_size"]
        return (self.geometry["in_chans"], size, size)


def case_of(name: str, config: Config, images_per_epoch: int) -> Case:
    """Create the case of a config with `images_per_epoch`. Raises `UserError` for a method that cannot be trained."""
    from repro.config.schedule import training_length, updates_per_iteration
    from repro.methods.build import part_arguments

    length = training_length(config, images_per_epoch)
    recipe = config.effective_recipe
    return Case(
        name,
        config.model.model_dump(mode="json"),
        {**recipe.model_dump(mode="json"), "peak_lr": recipe.peak_lr},
        tuple(part_arguments(config, length)),
        length,
        updates_per_iteration(config, length),
        config.model.dense_model().macs / 1e9,
    )


def to_json(value: Any) -> Any:
    """Convert to plain values; a schedule, a layer or a dense model becomes its fields under the name of its class."""
    if is_dataclass(value) and type(value).__name__ in _CARRIED:
        inner = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, "fields": inner}
    if isinstance(value, Case):
        return {**asdict(value), "parts": to_json(value.parts), "length": asdict(value.length)}
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return value


def from_json(value: Any) -> Any:
    """Invert `to_json` for everything but cases; a list inside a class becomes a tuple."""
    if isinstance(value, Mapping) and value.keys() == {"class", "fields"}:
        inner = {name: from_json(field) for name, field in value["fields"].items()}
        return _CARRIED[value["class"]](
            **{name: tuple(field) if isinstance(field, list) else field for name, field in inner.items()}
        )
    if isinstance(value, Mapping):
        return {key: from_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [from_json(inner) for inner in value]
    return value


def case_from_json(value: Mapping[str, Any]) -> Case:
    """Invert `to_json` for a case."""
    parts = tuple((target, from_json(given)) for target, given in value["parts"])
    return Case(**{**value, "parts": parts, "length": Length(**value["length"])})


class Training:
    """Trains a case on images of random noise, the same on every device.

    Args:
        batch: images per micro-batch; each update has `accumulate` micro-batches.
        compiler: backend of torch.compile; None for eager mode.
    """

    def __init__(
        self,
        case: Case,
        device: torch.device,
        *,
        batch: int,
        accumulate: int = 1,
        amp: str | None = None,
        drop_path: float | None = None,
        compiler: str | None = None,
        checkpointing: bool = False,
        ema: bool = False,
    ) -> None:
        recipe = SimpleNamespace(**{**case.recipe, **({} if ema else {"ema_decay": None})})
        self.case, self.device, self.batch, self.accumulate = case, device, batch, accumulate
        rate = recipe.drop_path if drop_path is None else drop_path
        geometry: Any = SimpleNamespace(**case.geometry)
        model = build_vit(geometry, rate, 0).to(device)
        parts = attach(case.parts, model)
        model = model.to(device)
        for part in parts:
            part.constrain(model)
        named: Any = recipe
        optimization = build_optimization(model, named, case.geometry["num_classes"], case.length, case.pace)
        self.state = TrainingState(model.train(), optimization, parts)
        for part in parts:
            part.start(optimization.optimizer)
        self.step = Step(
            self.state,
            World(0, 1, device),
            amp=recipe.amp if amp is None else amp,
            clip_grad_norm=recipe.clip_grad_norm,
            accumulate=accumulate,
            seed=0,
            checkpointing=checkpointing,
        )
        if compiler is not None:
            compile_blocks(model, device, compiler)
            self.step.compiled = True
        self._images = [self._drawn(number) for number in range(2)]
        for part in parts:
            part.prepare(self._backward_only)

    def _drawn(self, number: int) -> tuple[Tensor, Tensor]:
        noise = torch.Generator().manual_seed(number)
        images = torch.randn(self.batch, *self.case.image_shape, generator=noise)
        labels = torch.randint(self.case.geometry["num_classes"], (self.batch,), generator=noise)
        return images.to(self.device), labels.to(self.device)

    def _batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(first * self.accumulate, 1 << 62):
            yield self._images[number % len(self._images)]

    def _backward_only(self, global_batches: int) -> None:
        self.state.optimization.optimizer.zero_grad(set_to_none=True)
        with self.step.seeded("prepare", 0):
            self.step.backward(self._batches(0), global_batches)

    def update(self) -> None:
        """Run one optimizer update without synchronizing with the device."""
        self.state.optimization.set_learning_rate(self.state.update + 1, self.case.length)
        self.step.run(self._batches(self.state.update))

    def loss(self) -> float:
        """Return the mean loss of the updates since the last call."""
        found = float(self.state.loss_sum) / max(1, self.state.loss_updates)
        self.state.loss_sum.zero_()
        self.state.loss_updates = 0
        return found

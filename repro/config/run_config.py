"""The config of one run: all sections, and values derived from several of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt

from repro.config.launcher import Launcher
from repro.config.method import PRETRAINED, Finetune, Method, StagedFinetune
from repro.config.sections import Backbone, Data, Recipe, Run, Scale, Section, Tracker
from repro.config.signature import FORMER_BATCHES, former_signature, signature
from repro.counting.geometry import Geometry


class Config(Section):
    """The complete config of one run."""

    seed: NonNegativeInt
    backbone: Backbone
    model: Geometry
    method: Method
    data: Data
    recipe: Recipe
    scale: Scale
    launcher: Annotated[Launcher, Field(discriminator="name")]
    tracker: Tracker
    run: Run

    @property
    def effective_recipe(self) -> Recipe:
        """The recipe that this run is trained with: `recipe`, with the changes of a method that fine-tunes.

        A `Finetune` keeps the warm-up's share of the training and the final learning rate.
        """
        finetune = self.method.finetune
        if finetune is None:
            return self.recipe
        if isinstance(finetune, StagedFinetune):
            changes = finetune.changes
            return self.recipe.model_copy(update={**changes.model_dump(), "epochs": finetune.stages * changes.epochs})
        epochs = max(1, round(self.recipe.epochs * finetune.epochs_fraction))
        return self.recipe.model_copy(
            update={
                "epochs": epochs,
                "warmup_epochs": self.recipe.warmup_epochs * epochs / self.recipe.epochs,
                "lr": self.recipe.lr * finetune.lr_factor,
            }
        )

    @property
    def weights_after(self) -> float:
        """The share of the other run's training after which its weights are taken; 1 for its final weights."""
        return self.method.finetune.after if isinstance(self.method.finetune, Finetune) else 1.0

    @property
    def earlier_epochs(self) -> float:
        """Epochs of the other run's training before this one; 0 for random or published initial weights."""
        if self.method.starts_from in (None, PRETRAINED):
            return 0.0
        return self.weights_after * self.recipe.epochs  # `recipe` is that of the other run: see `Finetune`

    @property
    def stages(self) -> int:
        """Number of stages of equal length; the learning-rate schedule restarts with each."""
        return self.method.finetune.stages if isinstance(self.method.finetune, StagedFinetune) else 1

    @property
    def restarts(self) -> tuple[float, ...]:
        """Fractions of each stage at which the learning-rate schedule also restarts."""
        return self.method.finetune.restarts if isinstance(self.method.finetune, StagedFinetune) else ()

    @property
    def signature(self) -> str:
        """SHA-256, in hex, of everything that can change a result."""
        return signature(self.model_dump(mode="json"))

    @property
    def former_signature(self) -> str | None:
        """The signature of this config from when it included per-device batch sizes; None if it is the same."""
        micro_batch, finetune_micro_batch, eval_batch = FORMER_BATCHES.get(self.recipe.name, (None, None, None))
        is_staged = isinstance(self.method.finetune, StagedFinetune)
        is_usual = self.recipe.micro_batch == micro_batch and self.recipe.eval_batch == eval_batch
        if is_usual and (not is_staged or self.effective_recipe.micro_batch == finetune_micro_batch):
            return None  # avoids hashing, which takes a millisecond
        return former_signature(self.model_dump(mode="json"))
